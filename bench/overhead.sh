#!/usr/bin/env bash
# What Weir adds in front of a trivial upstream, beside nginx, haproxy and vmauth in the same rounds.
# Needs: apt-get install nginx haproxy wrk victoria-metrics curl python3; and target/release/weir.
# Usage: bench/overhead.sh [rounds] [seconds per target]
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3} seconds=${2:-4} weir=${WEIR:-target/release/weir}
for tool in nginx haproxy vmauth wrk curl python3; do
  command -v "$tool" > /dev/null || { echo "missing: $tool (apt-get install nginx haproxy wrk victoria-metrics)"; exit 1; }
done
work=$(mktemp -d); chmod 755 "$work"; pids=()
trap 'kill "${pids[@]}" 2> /dev/null || true; sleep 0.3; rm -rf "$work"' EXIT
query='api/v1/query?query=up&time=1700000000'
answer='{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","instance":"a:9090","job":"a"},"value":[1700000000,"1"]}]}}'
table='{"status":"success","data":{"headStats":{"numSeries":1000,"minTime":0},"seriesCountByMetricName":[{"name":"up","value":10}],"seriesCountByLabelValuePair":[{"name":"job=a","value":10}]}}'
mkdir -p "$work/big/api/v1"
python3 - "$work/big/api/v1/query_range" <<'PY'
import sys
with open(sys.argv[1], 'w') as out:
    out.write('{"status":"success","data":{"resultType":"matrix","result":[')
    values = ','.join(f'[{1700000000 + k * 15},"{k * 1.5}"]' for k in range(1000))
    size = i = 0
    while size < 200_000_000:
        part = ('' if i == 0 else ',') + '{"metric":{"__name__":"up","i":"%d"},"values":[%s]}' % (i, values)
        out.write(part); size += len(part); i += 1
    out.write(']}}')
PY
common="error_log $work/err; daemon off; events { worker_connections 4096; }"
cat > "$work/up.conf" <<CONF
worker_processes 1; pid $work/up.pid; $common
http { access_log off; default_type application/json; keepalive_requests 100000000; keepalive_timeout 1000s;
  server { listen 127.0.0.1:20001 backlog=4096;
    location /api/v1/status/tsdb { return 200 '$table'; }
    location /api/v1/query_range { root $work/big; }
    location / { return 200 '$answer'; } } }
CONF
cat > "$work/nginx.conf" <<CONF
worker_processes 2; pid $work/px.pid; $common
http { access_log off; keepalive_requests 100000000;
  upstream u { server 127.0.0.1:20001; keepalive 256; keepalive_requests 100000000; }
  server { listen 127.0.0.1:20011;
    location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
CONF
cat > "$work/ha.cfg" <<CONF
global
  nbthread 2
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:20012
  default_backend b
backend b
  server s 127.0.0.1:20001 pool-max-conn 256
CONF
printf 'users:\n- username: u\n  password: p\n  url_prefix: http://127.0.0.1:20001/\n' > "$work/auth.yml"
cat > "$work/weir.yaml" <<CONF
server: {listen: 127.0.0.1:20010, admin_listen: 127.0.0.1:20009}
backends: [{name: main, urls: ["http://127.0.0.1:20001"], budget: {memory: 64GiB, queries: 1000}, max_connections: 256}]
limits: {default: {per_query: {points: 500M, samples: 500M}, in_flight: {queries: 500, memory: 32GiB}, rate: {queries: 10M/s, samples: 1000M/s}}}
telemetry: {log: warn}
CONF
declare -A of
run() { local name=$1; shift; "$@" > "$work/$name.out" 2>&1 & of[$name]=$!; pids+=($!); }
run direct nginx -c "$work/up.conf"
run nginx nginx -c "$work/nginx.conf"
run haproxy haproxy -f "$work/ha.cfg"
run vmauth vmauth -auth.config="$work/auth.yml" -httpListenAddr=127.0.0.1:20013
run weir "$weir" proxy --config "$work/weir.yaml" --data "$work/data"
sleep 2
declare -A port=([direct]=20001 [weir]=20010 [nginx]=20011 [haproxy]=20012 [vmauth]=20013)
ticks() { # CPU of a process and its children
  local total=0 pid
  for pid in "$1" $(cat "/proc/$1/task/$1/children"); do
    total=$((total + $(awk '{print $14 + $15}' "/proc/$pid/stat")))
  done
  echo "$total"
}
echo "| round | target | requests/s at 32 connections | CPU us/request |"; echo "|--|--|--|--|"
for round in $(seq "$rounds"); do
  for name in direct weir nginx haproxy vmauth; do
    before=$(ticks "${of[$name]}")
    wrk -t1 -c32 -d"$seconds" -H 'Authorization: Basic dTpw' "http://127.0.0.1:${port[$name]}/$query" > "$work/wrk"
    after=$(ticks "${of[$name]}")
    awk -v n="$name" -v r="$round" -v t=$((after - before)) \
      '/requests in/ {q = $1} /Requests\/sec/ {s = $2} END {printf "| %s | %s | %.0f | %.1f |\n", r, n, s, t * 1e4 / q}' "$work/wrk"
  done
done
echo; bench/paced.py 3000 "$seconds" "$rounds" direct=20001 weir=20010 nginx=20011 vmauth=20013
big='api/v1/query_range?query=up&start=1700000000&end=1700003600&step=15'
echo; echo "| target | 200 MB answer, MB/s |"; echo "|--|--|"
for round in $(seq "$rounds"); do
  for name in weir vmauth; do
    curl -s -o /dev/null -H 'Authorization: Basic dTpw' -w "| $name | %{speed_download} |\n" "http://127.0.0.1:${port[$name]}/$big" |
      awk '{printf "| %s | %.0f |\n", $2, $4 / 1e6}'
  done
done
peak() { awk '/VmHWM/ {printf "%.1f MB\n", $2 / 1024}' "/proc/${of[weir]}/status"; }
echo; echo "peak RSS of weir after all of it: $(peak)"
for _ in 1 2 3 4 5 6 7 8; do curl -s --limit-rate 25M -o /dev/null "http://127.0.0.1:20010/$big" & readers="${readers:-} $!"; done
wait $readers
echo "and after 8 slow readers of 200 MB: $(peak)"
