#!/usr/bin/env bash
# Asks buf whether the contract breaks the one that main last held, or that of the last release.
#
# usage: tools/buf_breaking.sh BUF
#
# On a branch the base is where it left main; on main itself it is the commit before, so that
# the newest commit is checked too. A clone of one commit has only itself to compare with. A
# release is a tag such as v1.2.0 that HEAD has behind it.
set -euo pipefail

buf=$1
if ! git rev-parse --quiet --verify HEAD >/dev/null; then
    echo "warning: compatibility was not checked: this is not a git clone" >&2
    exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# compare REVISION: fails unless the contract is compatible with that of a revision.
compare() {
    if ! git cat-file -e "$1:proto" 2>/dev/null; then
        echo "The contract is new since $(git rev-parse --short "$1"): nothing to compare with"
        return
    fi
    rm -rf "$scratch/base" && mkdir "$scratch/base"
    git archive "$1" proto buf.yaml | tar -x -C "$scratch/base"
    # What buf.yaml takes from elsewhere; bases of before it did do not look for it.
    mkdir "$scratch/base/.tools" && cp -r .tools/googleapis "$scratch/base/.tools/"
    echo "Comparing the contract with $(git describe --tags --always "$1")"
    "$buf" breaking proto --against "$scratch/base/proto"
}

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
compare "$base"
release=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || true)
if [ -n "$release" ]; then
    compare "$release"
fi
