#!/bin/sh
# Makes what is missing of an installation's secrets, in a folder: `secrets.sh FOLDER [NAMESPACE]`. Needs openssl 3.
#
# cluster-secret, redis-password: random. signing.pem: the key that signs access tokens. ca.crt, tls.crt, tls.key: a CA
# of this cluster alone, whose key is thrown away, and one certificate for all nodes by a wildcard, for ten years.
# edge.crt, edge.key: signed by itself, for localhost, so that something answers; the public has another.
set -eu
umask 077
folder=${1:?"usage: secrets.sh FOLDER [NAMESPACE]"} namespace=${2:-klatch}
mkdir -p "$folder"
cd "$folder"
for secret in cluster-secret redis-password; do
  [ -e "$secret" ] || openssl rand -hex 32 | tr -d '\n' > "$secret"
done
[ -e signing.pem ] || openssl genpkey -algorithm ed25519 -out signing.pem

new=$(mktemp -d "$PWD/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 "$@" 2> "$new/said" ||
    { cat "$new/said" >&2; return 1; }
}
if [ ! -e edge.crt ]; then
  certificate -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout "$new/edge.key" -out "$new/edge.crt"
  mv "$new/edge.key" "$new/edge.crt" .
fi
if [ ! -e tls.crt ]; then
  certificate -subj "/CN=peers of klatch in $namespace" -addext keyUsage=critical,keyCertSign \
    -keyout "$new/ca.key" -out "$new/ca.crt"
  certificate -subj "/CN=node of klatch in $namespace" -CA "$new/ca.crt" -CAkey "$new/ca.key" \
    -addext "subjectAltName=DNS:*.klatch-peers.$namespace.svc" -addext extendedKeyUsage=serverAuth,clientAuth \
    -addext basicConstraints=critical,CA:FALSE -keyout "$new/tls.key" -out "$new/tls.crt"
  mv "$new/ca.crt" "$new/tls.key" "$new/tls.crt" .
fi
