#!/usr/bin/env bash
# Tests the step `STEP_NAME` as a pipeline runs it: needs `otto`.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$(dirname "$folder")"
output=$(otto step run "./$(basename "$folder")" --param who=tests)
grep --quiet 'Hello, tests!' <<< "$output" || { echo "$output"; echo 'the greeting is missing'; exit 1; }
echo 'ok'
