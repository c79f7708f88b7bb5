#!/bin/bash
# An OpenStack Swift with the S3 interface, on the loopback interface, for tests and for trying out.
#
#   infra/swift/start.sh FOLDER
#
# Needs the Debian packages swift-proxy swift-account swift-container swift-object memcached.
# Everything lies in FOLDER, which should be empty and on a file system with extended attributes.
# Prints `ready URL` and runs until it is told to end (ctrl-C, SIGTERM); then all of it ends.
# Access key test:tester, secret key testing, region us-east-1, path-style addresses.
set -euo pipefail

templates=$(cd "$(dirname "$0")" && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
mkdir -p "$folder"/{devices/disk,log,conf}

# Free ports, asked for all at once so that they differ.
read -r proxy account container object cache < <(python3 - <<'PORTS'
import socket
found = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
print(*(listener.getsockname()[1] for listener in found))
PORTS
)

for template in "$templates"/*.conf; do
  sed -e "s|@FOLDER@|$folder|g; s|@USER@|$(id -un)|g" \
      -e "s|@PROXY@|$proxy|g; s|@ACCOUNT@|$account|g; s|@CONTAINER@|$container|g" \
      -e "s|@OBJECT@|$object|g; s|@CACHE@|$cache|g" "$template" > "$folder/conf/$(basename "$template")"
done

cd "$folder/conf"
for ring in "account $account" "container $container" "object $object"; do
  read -r name port <<< "$ring"
  {
    swift-ring-builder "$name.builder" create 6 1 1
    swift-ring-builder "$name.builder" add "r1z1-127.0.0.1:$port/disk" 1
    swift-ring-builder "$name.builder" rebalance
  } > "$folder/log/ring-$name" 2>&1
done

trap 'exit 0' INT TERM
trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT
memcached -l 127.0.0.1 -p "$cache" -m 16 -u "$(id -un)" > "$folder/log/memcached" 2>&1 &
for server in account container object proxy; do
  "swift-$server-server" "$folder/conf/$server-server.conf" -v > "$folder/log/$server" 2>&1 &
done

for _ in $(seq 300); do
  if python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$proxy/healthcheck')" \
      2> /dev/null; then
    echo "ready http://127.0.0.1:$proxy"
    wait -n  # a server that ends takes the others with it
    echo "a server has ended; see $folder/log" >&2
    exit 1
  fi
  sleep 0.2
done
echo "Swift did not answer within a minute; see $folder/log" >&2
exit 1
