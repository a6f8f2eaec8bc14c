#!/bin/sh
# Makes what is missing of the secrets: the nodes' in /nodes, a certificate for NGINX that is signed by itself in /edge. Runs
# before everything else, and once it is done never has anything to do.
set -eu
umask 077
[ -e /nodes/cluster-secret ] || openssl rand -hex 32 > /nodes/cluster-secret
[ -e /nodes/signing.pem ] || openssl genpkey -algorithm ed25519 -out /nodes/signing.pem
[ -e /edge/tls.crt ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout /edge/tls.key -out /edge/tls.crt 2> /dev/null
chown -R 65532:65532 /nodes
chown -R 101:101 /edge
# Clients need the certificate.
chmod 755 /edge
chmod 644 /edge/tls.crt
