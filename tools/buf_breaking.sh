#!/usr/bin/env bash
# Asks buf whether the contract breaks the one that main last held.
#
# usage: tools/buf_breaking.sh BUF
#
# On a branch the base is where it left main; on main itself it is the commit before, so that
# the newest commit is checked too. A clone of one commit has only itself to compare with.
set -euo pipefail

buf=$1
if ! git rev-parse --quiet --verify HEAD >/dev/null; then
    echo "warning: compatibility was not checked: this is not a git clone" >&2
    exit 0
fi

base=HEAD
for main in origin/main main; do
    if git rev-parse --quiet --verify "$main^{commit}" >/dev/null; then
        base=$(git merge-base HEAD "$main" || echo HEAD)
        break
    fi
done
if [ "$(git rev-parse "$base")" = "$(git rev-parse HEAD)" ] &&
    git rev-parse --quiet --verify HEAD~1 >/dev/null; then
    base=HEAD~1
fi
if ! git cat-file -e "$base:proto" 2>/dev/null; then
    echo "The contract is new since $(git rev-parse --short "$base"): nothing to compare with"
    exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git archive "$base" proto buf.yaml | tar -x -C "$scratch"
# What buf.yaml takes from elsewhere; bases of before it did do not look for it.
mkdir -p "$scratch/.tools" && cp -r .tools/googleapis "$scratch/.tools/"
echo "Comparing the contract with $(git rev-parse --short "$base")"
"$buf" breaking proto --against "$scratch/proto"
