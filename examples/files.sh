#!/bin/sh
# Files and history over HTTP.
#
#   sh examples/files.sh FILE [http://HOST:PORT]
#
# The access token, if the server requires one, is taken from ASR_TOKEN.
set -eu
file=${1:?FILE is missing: sh examples/files.sh FILE [http://HOST:PORT]}
server=${2:-http://127.0.0.1:8080}

# A refusal is shown with its reason. The token is not an argument, because other users of the machine
# can read those.
curl() {
    printf '%s\n' "${ASR_TOKEN:+header = \"Authorization: Bearer $ASR_TOKEN\"}" |
        command curl -sS --fail-with-body -K - "$@"
}

# OpenAI's API: text, or verbose_json, srt and vtt with times. A header of the answer names the session.
headers=$(mktemp)
trap 'rm -f "$headers"' EXIT
curl -F model=whisper-1 -F response_format=text -F "file=@$file" "$server/v1/audio/transcriptions"
curl -F model=whisper-1 -F response_format=srt -F "file=@$file" -D "$headers" \
    "$server/v1/audio/transcriptions"
id=$(tr -d '\r' <"$headers" | sed -n 's/^[Xx]-[Ss]ession-[Ii]d: //p')

# Sessions of all clients, newest first.
curl "$server/api/v1/history?limit=3"
echo

# The session of the second upload: its text, its subtitles, its deletion.
curl "$server/api/v1/session/$id?format=text"
curl "$server/api/v1/session/$id?format=srt"
curl -X DELETE -o /dev/null -w 'deleted: %{http_code}\n' "$server/api/v1/session/$id"
