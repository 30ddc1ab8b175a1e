# Sourced by contrib/run and contrib/test: finds out what the machine lacks for them and installs it, and makes the
# virtual environment .venv. Does nothing, quickly, when all is there. Works as root in a container too: no service
# is started, and nothing needs systemd. Not for use by itself.
#
#   need WHAT DEBIAN FEDORA   note the package to install if WHAT is not there. WHAT is a program, a file (with a
#                             slash; a shell pattern), a module of /usr/bin/python3 ("python:NAME") or "kernel".
#                             Ubuntu uses Debian's names; "kernel" knows its own; '' for a package that there is none.
#   install_needed            install what was noted
#   unpack FILE DEBIAN        for a package that cannot be installed beside another one: what it depends on is installed,
#                             itself it is unpacked below .venv/unpacked, unless FILE is there already
#   make_venv EXTRAS          .venv with virtd in it, editable, with the extras of setup.cfg ("", "[test]")

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "${0##*/}: $*"
    exit 1
}

if command -v apt-get >/dev/null; then
    packager=apt
elif command -v dnf >/dev/null; then
    packager=dnf
else
    packager=
fi
needed=

need() {
    is_there "$1" && return
    case $packager in
    dnf) [ -z "$3" ] || needed="$needed $3" ;;
    *) needed="$needed $2" ;;
    esac
}

is_there() {
    case $1 in
    kernel)
        for modules in /lib/modules/*/modules.dep; do
            directory=${modules%/modules.dep}
            [ -f "/boot/vmlinuz-${directory##*/}" ] || [ -f "$directory/vmlinuz" ] || continue
            [ -f "$modules" ] && return
        done
        return 1
        ;;
    python:*)
        # Looked for, not imported: that takes longer.
        /usr/bin/python3 -c 'import sys, importlib.util as u; sys.exit(not u.find_spec(sys.argv[1]))' "${1#python:}" \
            2>/dev/null
        ;;
    */*)
        for file in $1; do
            [ -e "$file" ] && return
        done
        return 1
        ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

kernel_package() {
    case $( (. /etc/os-release && echo "$ID $ID_LIKE") 2>/dev/null) in
    *ubuntu*) echo linux-image-virtual ;;
    *) echo linux-image-cloud-amd64 ;;
    esac
}

install_needed() {
    [ -n "$needed" ] || return 0
    [ -n "$packager" ] || die "please install, by these or similar names:$needed"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "not root, and there is no sudo; please install:$needed"
        as_root=sudo
    fi
    say "installing:$needed"
    case $packager in
    apt)
        # Until it is removed, this keeps packages from starting services.
        policy=/usr/sbin/policy-rc.d
        if [ ! -e $policy ]; then
            printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
            $as_root chmod 755 $policy
            trap '$as_root rm -f $policy' EXIT
        else
            policy=
        fi
        $as_root apt-get -qq update
        # shellcheck disable=SC2086
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $needed >&2
        trap - EXIT
        [ -z "$policy" ] || $as_root rm -f $policy
        ;;
    dnf)
        # shellcheck disable=SC2086
        $as_root dnf -q -y --setopt=install_weak_deps=False install $needed >&2
        ;;
    esac
    needed=
}

make_venv() {
    # The distribution's own Python, because that has the libvirt module, which pip could only compile.
    python=/usr/bin/python3
    stamp="$($python -V) $(cksum setup.cfg pyproject.toml)"
    if [ -x .venv/bin/python ]; then
        case $(cat .venv/stamp 2>/dev/null) in
        "$stamp $1" | "$stamp [test]") return ;;
        esac
    fi
    say "installing virtd and what it needs into .venv"
    $python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or later is needed: $($python -V)"
    $python -m venv --clear --system-site-packages .venv
    .venv/bin/python -m pip --quiet --disable-pip-version-check install --editable ".$1" >&2
    printf '%s' "$stamp $1" >.venv/stamp
}

unpack() {
    [ ! -e ".venv/unpacked/$1" ] && [ "$packager" = apt ] || return 0
    if [ -z "$(apt-cache depends "$2" 2>/dev/null)" ]; then
        as_root=sudo
        [ "$(id -u)" != 0 ] || as_root=
        $as_root apt-get -qq update
    fi
    # What its libraries are called differs from release to release: the package knows.
    for library in $(apt-cache depends "$2" | sed -n 's/^  Depends: \(lib[^<]*\)$/\1/p'); do
        dpkg -s "$library" >/dev/null 2>&1 || needed="$needed $library"
    done
    install_needed
    say "unpacking $2 into .venv/unpacked"
    (
        cd .venv
        apt-get -qq download "$2" 2>/dev/null
        dpkg-deb -x "$2"_*.deb unpacked
        rm "$2"_*.deb
    )
}
