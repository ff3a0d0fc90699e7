#!/usr/bin/env bash
# Everything that docs/results.md reports: data, training, evaluation and comparison, from nothing.
#
#   benchmarks/results.sh [OUT] [STAGE...]       OUT: build/results; STAGE: data main corrections beyond evaluate acting
#                                                 estimates compare pictures; default: all of them
#   SEEDS="0 1 2 3 4"  JOBS=2  RQL=".venv/bin/python -m rql_core.cli"   may be set in the environment
#
# What is done is skipped, and a run that was killed goes on where it was. On two cores it takes three to four hours.
# Those of docs/images were copied from OUT/pictures.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-build/results}
shift || true
STAGES=${*:-data main corrections beyond evaluate acting estimates compare pictures}
export OUT SEEDS=${SEEDS:-0 1 2 3 4} JOBS=${JOBS:-$(nproc)} RQL=${RQL:-.venv/bin/python -m rql_core.cli}
export PYTHON=${PYTHON:-.venv/bin/python}
# Networks this small are slower on two threads than on one; the cores are used by runs beside each other.
export OMP_NUM_THREADS=1

# The task decides data, world, and how long: 8,000 updates are half of what the UR5e's own settings say, so that five
# seeds of seven learners fit into an afternoon of two cores.
dataset() { case $1 in planar) echo planar_arm-v0 ;; stitching) echo stitching-v0 ;; ur5e) echo ur5e-v0 ;; esac; }
world() { case $1 in ur5e) echo ur5e_ring ;; *) echo planar_arm ;; esac; }
robot() { case $1 in ur5e) echo ur5e ;; *) echo planar_arm ;; esac; }
length() {
    case $1 in
    ur5e) echo updates=8000 evaluate_every=2000 checkpoint_every=2000 ;;
    *) echo updates=3000 evaluate_every=500 checkpoint_every=500 ;;
    esac
}
# With Q-normalisation the critic's term is of size 1, and was of size |V|: 10 to 11.5 on the UR5e and 6.5 on the planar
# arm. An alpha that weighs as much is smaller by that.
scaled_alpha() { case $1 in ur5e) echo 0.15 ;; *) echo 0.045 ;; esac; }
export -f dataset world robot length scaled_alpha

# One run: TASK LABEL SEED ALGORITHM [SETTING...]
train_run() {
    local task=$1 label=$2 seed=$3 algorithm=$4
    shift 4
    local run=$OUT/runs/$task/$label-seed$seed resume=
    if [ -e "$run/trained" ]; then return 0; fi
    if [ -L "$run/checkpoint" ]; then resume=--resume; fi
    mkdir -p "$run"
    # shellcheck disable=SC2086
    $RQL train "$OUT/data/$(dataset "$task")" --config "$(robot "$task")_$algorithm" --out "$run" $resume --seed "$seed" \
        --threads 1 --world "$(world "$task")" --episodes 20 \
        --set keep_last=100 tensorboard=false $(length "$task") "${@/ALPHA/$(scaled_alpha "$task")}" > "$run/log.txt" 2>&1 ||
        { echo "failed: $run (see log.txt)" >&2; return 1; }
    touch "$run/trained"
    echo "trained $run"
}
export -f train_run

evaluate_run() {
    local task acting=
    task=$(basename "$(dirname "$1")")
    case $1 in *"$BEST"*) acting="--samples 16" ;; esac
    # shellcheck disable=SC2086
    $RQL evaluate "$1" --world "$(world "$task")" --episodes 50 --first-seed 1000 $acting > "$1/evaluation.txt" 2>&1 ||
        { echo "failed: $1 (see evaluation.txt)" >&2; return 1; }
    echo "evaluated $1"
}
export -f evaluate_run

# TASK LABEL NAME OPTION...: all seeds' last checkpoints, acting in several ways.
act() {
    local task=$1 label=$2 file=$OUT/acting/$1-$2-$3
    shift 3
    # Done again where a run was trained since, such as one of another seed.
    if [ ! -e "$file.json" ] || [ -n "$(find "$OUT/runs/$task" -path "*/$label-seed*/trained" -newer "$file.json")" ]; then
        $RQL evaluate "$OUT/runs/$task/$label"-seed* --world "$(world "$task")" --first-seed 2000 --workers "$JOBS" "$@" --episodes 25 \
            --out "$file.json" --plot "$file.png" | tee "$file.txt"
    fi
}

# TASK NAME AT BASELINE LABEL...: a table and a page of these groups of runs, at the end or after AT updates.
compare_groups() {
    local task=$1 name=$2 at=${3:+--at $3} baseline=$4 label groups=()
    shift 4
    for label in "$@"; do
        if compgen -G "$OUT/runs/$task/$label-seed*" > /dev/null; then
            groups+=(--group "$label=$OUT/runs/$task/$label-seed*")
        fi
    done
    [ ${#groups[@]} -gt 0 ] || return 0
    echo "-- $task, $name"
    # shellcheck disable=SC2086
    $RQL compare "${groups[@]}" --baseline "$baseline" $at --out "$OUT/tables/$task-$name.html" \
        --json "$OUT/tables/$task-$name.json" --markdown "$OUT/tables/$task-$name.md"
}

# Run the lines of standard input, each the arguments of train_run, $JOBS beside each other.
train_all() { xargs -P "$JOBS" -I{} bash -c 'train_run {}'; }

# A policy that acts by the best of 16 samples is a run of its own to `rql compare`: a copy, evaluated in that way.
export BEST=+best_of_16
copy_to_act() {
    local label task seed
    for label in paper rql; do
        for task in "$@"; do for seed in $SEEDS; do
            local run=$OUT/runs/$task/$label-seed$seed copy=$OUT/runs/$task/$label$BEST-seed$seed
            if [ -e "$copy/trained" ]; then continue; fi
            rm -rf "$copy" "$copy.partial"
            cp -a "$run" "$copy.partial"
            rm -f "$copy.partial"/evaluation*.*
            # It was trained like the original; how it did meanwhile, acting otherwise, was not measured.
            grep -v evaluation/ "$run/metrics.jsonl" > "$copy.partial/metrics.jsonl"
            mv "$copy.partial" "$copy"
        done; done
    done
}

RAW=normalise_observations=false SCALED=normalise_observations=true PAPER=algorithm.form=paper
learners() { # what is compared: LABEL ALGORITHM [SETTING...]
    cat <<END
bc_flow bc_flow
rql rql
paper-raw rql $PAPER $RAW
paper rql $PAPER $SCALED
ifql ifql
fql fql
qc qc
END
}
corrections() { # each correction alone
    local one
    for one in chunk_ends first_terminal uniform_starts target_range; do
        echo "paper+$one rql $PAPER $SCALED algorithm.corrections=[$one]"
    done
}
beyond() { # beyond the paper: its form, and one thing more
    cat <<END
paper+q_normalisation rql $PAPER $SCALED algorithm.q_normalisation=true algorithm.alpha=ALPHA
paper+midpoint rql $PAPER $SCALED algorithm.reversal_integrator=midpoint
paper+target_range rql $PAPER $SCALED algorithm.corrections=[target_range]
END
}
for_tasks() { # TASK... < lines of LABEL ALGORITHM [SETTING...]
    local lines line task seed
    mapfile -t lines
    for task in "$@"; do
        for line in "${lines[@]}"; do for seed in $SEEDS; do
            echo "$task ${line%% *} $seed ${line#* }"
        done; done
    done
}

for stage in $STAGES; do
    echo "== $stage"
    case $stage in
    data)
        mkdir -p "$OUT/data"
        [ -d "$OUT/data/planar_arm-v0" ] ||
            $RQL generate planar_arm --episodes 100 --steps 200 --seed 0 --out "$OUT/data/planar_arm-v0"
        [ -d "$OUT/data/stitching-v0" ] ||
            $RQL fragment "$OUT/data/planar_arm-v0" --steps 15 --out "$OUT/data/stitching-v0"
        [ -d "$OUT/data/ur5e-v0" ] ||
            $RQL generate ur5e_ring --episodes 210 --steps 200 --seed 0 --out "$OUT/data/ur5e-v0"
        ;;
    main) learners | for_tasks planar stitching ur5e | train_all ;;
    corrections) corrections | for_tasks planar | train_all ;;
    beyond)
        beyond | for_tasks ur5e planar | train_all
        copy_to_act planar ur5e
        ;;
    evaluate) # 50 episodes of every run's last checkpoint, with seeds that training never evaluated with
        for run in "$OUT"/runs/*/*/; do
            if [ -e "${run}trained" ] && [ ! -e "${run}evaluation.json" ]; then echo "${run%/}"; fi
        done | xargs -r -P "$JOBS" -I{} bash -c 'evaluate_run {}'
        ;;
    acting) # success against the number of samples and of flow steps, for everything with critics
        mkdir -p "$OUT/acting"
        for task in planar ur5e; do
            for label in rql ifql fql qc bc_flow; do
                # BC flow has no critics to choose by, and FQL's actor takes one step.
                [ $label = bc_flow ] || act "$task" "$label" samples --samples 1 4 16 64
                [ $label = fql ] || act "$task" "$label" steps --flow-steps 1 2 3 5 10
            done
        done
        ;;
    estimates) # how well estimates from logs alone rank the planar arm's checkpoints, of three seeds
        [ -d "$OUT/data/planar_held_out-v0" ] ||
            $RQL generate planar_arm --episodes 25 --steps 200 --seed 1 --out "$OUT/data/planar_held_out-v0"
        $PYTHON -m benchmarks.rank_estimates "$OUT"/runs/planar/{rql,paper,bc_flow,ifql,fql,qc}-seed[0-2] \
            --dataset "$OUT/data/planar_held_out-v0" --every 2 --jobs "$JOBS" --json "$OUT/rank_estimates.json" \
            --out "$OUT/pictures/rank_estimates.png" | tee "$OUT/rank_estimates.txt"
        ;;
    compare)
        mkdir -p "$OUT/tables"
        for task in planar stitching ur5e; do
            main=$(learners | cut -d' ' -f1) beyond=$(beyond | cut -d' ' -f1) corrections=$(corrections | cut -d' ' -f1)
            compare_groups "$task" main "" rql $main
            [ "$task" != stitching ] || continue
            compare_groups "$task" beyond "" paper paper rql paper$BEST rql$BEST $beyond
            [ "$task" = planar ] || continue
            compare_groups "$task" corrections "" paper paper rql $corrections
            # Where everything ends near 1, what differs is how soon.
            compare_groups "$task" beyond-soon 1000 paper paper rql $beyond
            compare_groups "$task" corrections-soon 1000 paper paper rql $corrections
        done
        ;;
    pictures) $PYTHON -m benchmarks.results_figures "$OUT" --out "$OUT/pictures" ;;
    *)
        echo "unknown stage $stage" >&2
        exit 2
        ;;
    esac
done
