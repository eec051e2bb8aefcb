#!/bin/sh
# Files and history over HTTP.
#
#   sh examples/files.sh FILE [http://HOST:PORT]
#
# ASR_TOKEN in the environment, if the server wants a token.
set -eu
file=$1
server=${2:-http://127.0.0.1:8080}

# Not among the arguments, which everybody on the machine can read.
curl() {
    printf '%s\n' "${ASR_TOKEN:+header = \"Authorization: Bearer $ASR_TOKEN\"}" | command curl -K - "$@"
}

# As with OpenAI: the text; response_format=verbose_json, srt and vtt have times.
curl -sf -F model=demo -F response_format=text -F "file=@$file" "$server/v1/audio/transcriptions"
curl -sf -F model=demo -F response_format=srt -F "file=@$file" "$server/v1/audio/transcriptions"

# What was said, newest first, of any client.
curl -sf "$server/api/v1/history?limit=3"
echo

# One session: its text, its subtitles, and its end.
id=$(curl -sf "$server/api/v1/history?limit=1" | grep -o '"session_id":"[^"]*"' | head -1 | cut -d'"' -f4)
curl -sf "$server/api/v1/session/$id?format=text"
curl -sf "$server/api/v1/session/$id?format=srt"
curl -sf -X DELETE -o /dev/null -w 'deleted: %{http_code}\n' "$server/api/v1/session/$id"
