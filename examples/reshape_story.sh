#!/bin/sh
# From a dense model to a small expert network, one command of cadre a step: upcycle, train a little,
# merge experts, compress, run. After each: bytes of weights, loss on held-out text, tokens a second.
#
#   examples/reshape_story.sh [MODEL [DATA [OUT]]]
#
# MODEL is a dense checkpoint folder (default: quickstart/dense), DATA the folder of its token files
# (default: quickstart/data), OUT where everything goes (default: story). Leaves OUT/story.md, the
# table, and OUT/story.svg, the picture; what is there already is not made again. STEPS (300) sets how
# long the experts train, THREADS (0 = one per core) with how many threads, CADRE which program.
set -eu

model=${1:-quickstart/dense} data=${2:-quickstart/data} out=${3:-story}
cadre=${CADRE:-cadre} threads=${THREADS:-0} steps=${STEPS:-300}
[ -f "$model/config.json" ] || {
  echo "reshape_story: $model: is no checkpoint folder; make quickstart makes one" >&2
  exit 2
}
[ -f "$data/data.json" ] || {
  echo "reshape_story: $data: has no token files (data.json); give the folder as the second word" >&2
  exit 2
}
mkdir -p "$out"

# text FILE SKIP COUNT: tokens of a token file (48 bytes of header, two bytes a token) as text.
text() {
  od -An -v -tu2 -j "$((48 + 2 * $2))" -N "$((2 * $3))" "$1" | "$cadre" tokenizer decode "$data"
}
# number NAME: the first number of that name in the JSON on standard input.
number() { sed -n "s/.*\"$1\": *\\([-0-9.e+]*\\).*/\\1/p" | head -n 1; }
# made FILE COMMAND...: runs the command unless the file is there.
made() {
  [ -e "$1" ] && return
  shift
  echo "+ $*" >&2
  "$@" >&2
}

held_out=$out/held-out.txt
[ -e "$held_out" ] || for file in "$data"/*-validation.tokens; do text "$file" 0 6000; done >"$held_out"
calibration=
for file in "$data"/*-train.tokens; do
  name=$out/calibration-$(basename "$file" -train.tokens).txt
  [ -e "$name" ] || text "$file" 100000 4096 >"$name"
  calibration="$calibration --text $name"
done

bytes_of() {
  if [ -d "$1" ]; then cat "$1"/*.safetensors | wc -c; else wc -c <"$1"; fi
}
# stage NAME MODEL: measures, once.
stage() {
  line=$out/$1.stage
  if [ ! -e "$line" ]; then
    loss=$("$cadre" perplexity "$2" --text "$held_out" --threads "$threads" --json 2>/dev/null | number loss)
    speed=$("$cadre" bench "$2" --threads "$threads" --prompt-tokens 64 --tokens 128 --repeat 5 --json |
      number decode_tokens_per_second)
    echo "$1 $(bytes_of "$2") $loss $speed" >"$line"
  fi
  cat "$line" >>"$out/stages"
}

rm -f "$out/stages"
stage dense "$model"
made "$out/upcycled" "$cadre" upcycle "$model" --copies 8 --used 2 --noise 0.1 --out "$out/upcycled"
stage upcycled "$out/upcycled"
train() {
  made "$2/model/config.json" "$cadre" train --from "$1" --out "$2" --steps "$steps" --batch 4 \
    --length 256 --lr 0.001 --warmup-steps 20 --balance 0.02 --max-domain-mib 8 --threads "$threads"
}
train "$out/upcycled" "$out/run"
stage trained "$out/run/model"
# shellcheck disable=SC2086
made "$out/statistics" "$cadre" calibrate "$out/run/model" $calibration --out "$out/statistics" \
  --threads "$threads"
made "$out/merged" "$cadre" merge-experts "$out/run/model" --experts 4 --stats "$out/statistics" \
  --out "$out/merged" --threads "$threads"
stage merged "$out/merged"
made "$out/small.gguf" "$cadre" compress "$out/merged" --stats "$out/statistics" \
  --to-bytes "$(($(bytes_of "$out/merged") / 5))" --out "$out/small.gguf" --threads "$threads"
stage compressed "$out/small.gguf"
# What the same training makes of the dense model itself: the measure of what experts are worth.
train "$model" "$out/twin"
stage dense-trained "$out/twin/model"

awk 'BEGIN { print "| stage | MiB | loss | tokens/s |\n|---|---|---|---|" }
     { printf "| %s | %.2f | %.4f | %.0f |\n", $1, $2 / 1048576, $3, $4 }' "$out/stages" >"$out/story.md"
cat "$out/story.md"
if command -v gnuplot >/dev/null; then
  gnuplot <<EOF
set terminal svg size 720,360 font "sans-serif,13" background "white"
set output "$out/story.svg"
set style data histograms
set style fill solid 0.8
set boxwidth 0.8
set ylabel "MiB"
set y2label "loss, nats a token"
set yrange [0:*]
set ytics nomirror
set y2tics
set key top right
set title "A dense model becomes a small expert network"
plot "$out/stages" using (\$2 / 1048576):xtic(1) title "size" linecolor rgb "#8aa8c8", \
     "" using 0:3 axes x1y2 with linespoints pointtype 7 linewidth 2 linecolor rgb "#b03a2e" title "loss"
EOF
else
  echo "reshape_story: gnuplot is not installed: no picture" >&2
fi
"$cadre" run "$out/small.gguf" "In the beginning" --tokens 32 --temperature 0 --threads "$threads"
