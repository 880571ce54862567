#!/usr/bin/env bash
# The program of the step `STEP_NAME`. Its one argument is the path of its invocation, a JSON file with one key on a line.
# Its exit code is its result: 0 success, 1 failed, 2 aborted, 3 unstable.
set -euo pipefail
invocation=$1

# The text of a key of the invocation.
text_of() {
  local text
  text=$(sed -n 's/^ *"'"$1"'": "\(.*\)",\{0,1\}$/\1/p' "$invocation" | head -n 1)
  printf '%b' "$text" | sed 's/\\"/"/g'
}

# Calls the agent: METHOD PATH BODY.
call() {
  curl --silent --show-error --fail --unix-socket "$(text_of ipc)" --request "$1" --header "Authorization: Bearer $(text_of secret)" \
    --header 'Content-Type: application/json' --data-raw "$3" "http://otto$2" > /dev/null
}

greeting="$(text_of word), $(text_of who)!"
call POST "$(text_of status)" '{"status": "greeting"}'
echo "$greeting"
call PUT "$(text_of variables)/$(text_of into)" "$greeting"
