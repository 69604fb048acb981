#!/usr/bin/env bash
# Makes one object file of the same sources compiled for several processors. Each op, a function of depthstill::cpu whose
# first argument is a Stream, becomes a jump to the copy that depthstill_width says. All else of a wider copy, inline
# functions and the standard library's templates too, stays local to it: merged, a lesser processor might get it.
# Usage: link_widths.sh OUT.o --width NAME OBJECT... --width NAME OBJECT...   (environment: LD, NM, OBJCOPY, CC)
set -euo pipefail
out=$1; shift
work=$out.parts
rm -rf "$work"
mkdir -p "$work"

names=()
for argument in "$@"; do
  if [ "$argument" = --width ]; then names+=(""); continue; fi
  if [ -z "${names[-1]}" ]; then names[-1]=$argument; else echo "$argument" >>"$work/${names[-1]}.objects"; fi
done

# A type of the template's arguments with a Z in it is local to a function: that is no op.
op='^_ZN10depthstill3cpu[0-9]+[a-z0-9_]+(I[^Z]*E)?Ev?NS_6StreamE'
mapfile -t base <"$work/${names[0]}.objects"
"$NM" -g --defined-only "${base[@]}" | awk -v op="$op" 'NF == 3 && $3 ~ op {print $3}' | sort -u >"$work/ops"
[ -s "$work/ops" ] || { echo "expected ops in ${base[*]}, found none" >&2; exit 1; }

for name in "${names[@]}"; do
  mapfile -t objects <"$work/$name.objects"
  sed "s/.*/& &.$name/" "$work/ops" >"$work/$name.map"
  if [ "$name" = "${names[0]}" ]; then
    "$LD" -r -o "$work/$name.all" "${objects[@]}"
    "$OBJCOPY" --redefine-syms="$work/$name.map" "$work/$name.all" "$work/$name.o"
  else
    "$LD" -r --force-group-allocation -o "$work/$name.all" "${objects[@]}"
    if "$NM" "$work/$name.all" | grep -E '_GLOBAL__sub_[ID]_'; then # these run on every processor when a program starts
      echo "$name: expected no objects that are initialised at run time, found the above" >&2
      exit 1
    fi
    "$OBJCOPY" --redefine-syms="$work/$name.map" "$work/$name.all"
    sed "s/\$/.$name/" "$work/ops" >"$work/$name.global"
    "$OBJCOPY" --keep-global-symbols="$work/$name.global" "$work/$name.all" "$work/$name.o"
  fi
done

# r10 and r11 hold no arguments.
{
  echo '.section .note.GNU-stack,"",@progbits'
  while read -r symbol; do
    printf '.section .data.rel.ro,"aw"\n.balign 8\n.L%s:\n' "$symbol"
    printf ".quad $symbol.%s\n" "${names[@]}"
    printf '.text\n.globl %s\n.type %s, @function\n%s:\n' "$symbol" "$symbol" "$symbol"
    printf 'movslq depthstill_width(%%rip), %%r11\nleaq .L%s(%%rip), %%r10\njmp *(%%r10,%%r11,8)\n' "$symbol"
  done <"$work/ops"
} >"$work/jumps.s"
"$CC" -c "$work/jumps.s" -o "$work/jumps.o"
parts=("${names[@]/#/$work/}")
"$LD" -r -o "$out" "$work/jumps.o" "${parts[@]/%/.o}"
