#!/usr/bin/env bash
# Writes the generated code of the clients that have a buf.gen.yaml of their own, or checks that it
# is what proto/ gives. A client whose generator cannot be had is left out with a warning; with
# CI=true that is an error.
#
# usage: tools/client_stubs.sh write|check BUF
set -euo pipefail

mode=$1 buf=$2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
missing=()

# generator CLIENT: the program that its plugins need; the make targets that install them.
generator() {
    case $1 in
        go) echo go .tools/bin/protoc-gen-go .tools/bin/protoc-gen-go-grpc ;;
        rust) echo cargo ;;
        *) echo "error: tools/client_stubs.sh knows no generator of clients/$1" >&2; exit 1 ;;
    esac
}

for template in clients/*/buf.gen.yaml; do
    client=$(basename "$(dirname "$template")")
    read -r program targets <<<"$(generator "$client")"
    if ! command -v "$program" >/dev/null; then
        missing+=("$client (needs $program)")
        continue
    fi
    # shellcheck disable=SC2086 # Each target is a word.
    [ -z "$targets" ] || make --no-print-directory -s $targets
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    "$buf" generate --template "$template" --output "$scratch"
    # Where the template puts things is where they are compared and replaced.
    for out in $(cd "$scratch" && find "clients/$client" -mindepth 1 -maxdepth 2 -name gen); do
        if [ "$mode" = write ]; then
            rm -rf "$out"
            cp -r "$scratch/$out" "$out"
        elif ! diff --recursive "$scratch/$out" "$out"; then
            echo "error: $out is not what proto/ gives: run 'make generate'" >&2
            exit 1
        fi
    done
    rm -rf "$scratch"
done

if [ ${#missing[@]} -gt 0 ]; then
    echo "warning: stubs not generated of: ${missing[*]}" >&2
    [ "${CI:-}" != true ]
fi
