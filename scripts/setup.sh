# Sourced by scripts/train and scripts/test: makes .venv with the project in it. Needs `root`.
# A finished set-up leaves stamps of what it was made from, so that later runs are offline and take no time.

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

set_up() { # EXTRA...: the optional dependencies wanted; a stamp an extra tells what is there already
    local extra extras made_from python constraints=()
    [ -z "${CI:-}" ] || constraints=(-c "$root/constraints.txt")
    made_from="$root $(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum)"
    for extra in "$@"; do
        if [ "$(cat "$root/.venv/.installed-$extra" 2>/dev/null)" != "$made_from" ]; then
            extras="$(IFS=, && echo "$*")"
        fi
    done
    [ -n "${extras:-}" ] || return 0
    echo "setting up $root/.venv (once, some minutes)" >&2
    if command -v uv >/dev/null 2>&1; then
        [ -x "$root/.venv/bin/python" ] || uv venv --quiet --python '>=3.11,<3.15' "$root/.venv" || fail "uv could not make $root/.venv"
        uv pip install --quiet --python "$root/.venv/bin/python" ${constraints[@]+"${constraints[@]}"} -e "$root[$extras]" || fail "uv could not install the project"
    else
        if [ ! -x "$root/.venv/bin/python" ]; then
            python="$(find_python)" || fail "needs Python 3.11 to 3.14 (or set PYTHON)"
            "$python" -m venv "$root/.venv" || fail "could not make $root/.venv (on Debian: apt-get install python3-venv)"
        fi
        "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check ${constraints[@]+"${constraints[@]}"} -e "$root[$extras]" || fail "pip could not install the project"
    fi
    for extra in "$@"; do
        echo "$made_from" >"$root/.venv/.installed-$extra"
    done
}

install_debian_package() { # NAME
    [ -f /etc/debian_version ] && [ "$(id -u)" = 0 ] || return 1
    echo "installing the Debian package $1" >&2
    apt-get install -y -qq --no-install-recommends "$1" >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$1"; } >/dev/null 2>&1
}
