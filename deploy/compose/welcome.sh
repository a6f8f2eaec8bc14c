#!/bin/sh
# Asks as a client would, and says where everything is.
set -eu
curl --fail --silent --show-error --cacert /etc/klatch/tls/tls.crt https://localhost:8443/openapi.json > /dev/null
cat <<'END'
Klatch answers at https://localhost:8443, Grafana at http://localhost:3000. To ask it, in another terminal:

  docker compose -f deploy/compose.yaml cp nginx:/etc/klatch/tls/tls.crt klatch.crt
  token=$(docker compose -f deploy/compose.yaml exec klatch-0 klatch token --sub YOUR_NAME)
  curl --cacert klatch.crt https://localhost:8443/v1/responses -H "Authorization: Bearer $token" \
    -H 'Content-Type: application/json' -d '{"model": "eliza", "input": "Hello. I am a little tired."}'
END
