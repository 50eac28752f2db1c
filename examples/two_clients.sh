#!/bin/bash
# Two clients of one server, one after the other:
#
#     djinn-run -n 3 -- examples/two_clients.sh
#
# The second finds the weights in Text (nothing is read or kept twice) and its plans made: 0 misses from
# its first batch on. Of each client the first two batches and the summary are shown, then the server's
# own view.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/build/venv/bin/python

search() {
    "$python" "$root/examples/semantic_search.py" "$@" 2>&1 |
        awk '/ sentences .* ms / { if (++batches > 2) next } !/^$|Loading weights/'
}

echo "--- first client"
search --query "an old house by the sea"
echo "--- second client"
search --query "news from a sailor"
echo "--- the server"
"$root/build/release/bin/djinn" info
