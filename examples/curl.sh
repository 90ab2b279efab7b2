#!/bin/sh
# The server with nothing but curl: a chat, a stream, an answer of a schema, vectors.
# First: npx rwkv serve

set -eu
url=${RWKV_URL:-http://127.0.0.1:8080}

post() {
  curl --silent --show-error --fail-with-body --no-buffer "$url$1" --header 'Content-Type: application/json' --data "$2"
  echo
}

post /v1/chat/completions '{"messages": [{"role": "user", "content": "Tell me of a wolf"}], "max_tokens": 60}'
post /v1/chat/completions '{"messages": [{"role": "user", "content": "Tell me of a wolf"}], "max_tokens": 20, "stream": true}'
post /v1/completions '{"prompt": "The wolf was", "regex": " (grey|old|hungry)\\."}'
post /v1/chat/completions '{"messages": [{"role": "user", "content": "Is the wolf hungry?"}], "choice": ["yes", "no"]}'
post /v1/embeddings '{"input": ["A wolf in the forest", "A king in his castle"], "dimensions": 4}'
