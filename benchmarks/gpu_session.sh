#!/usr/bin/env bash
# Everything that wants a GPU, in the order of its worth, for a machine that is there for half an hour:
#   benchmarks/gpu_session.sh OUT [MINUTES]
# Correctness first; then the speed of updates; then, in the minutes that are left, the paper's tasks, packed into OUT so
# that another machine can go on. Each part writes its log and goes on where another failed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?expected a directory for the results}
minutes=${2:-25}
python=${PYTHON:-.venv/bin/python}
start=$(date +%s)
mkdir -p "$out"

part() {
    local name=$1
    shift
    echo "== $name"
    "$@" > "$out/$name.log" 2>&1
    echo "exit status $?; the end of $out/$name.log:"
    tail -n 20 "$out/$name.log"
}

part correct "$python" -m pytest -q test/core/training/test_cuda.py
part speed "$python" -m benchmarks.gpu_update --out "$out"
left=$((minutes - ($(date +%s) - start) / 60))
if [ "$left" -ge 4 ]; then
    part tasks "$python" -m benchmarks.paper_tasks --minutes "$left" --out "$out/tasks" --pack "$out/tasks.tar.gz" \
        --cuda-graphs --precision tf32
else
    echo "== tasks: left out, $left minutes are left"
fi
