# Completion of virtsh for bash: put it into /usr/share/bash-completion/completions/virtsh.
# The candidates are virtsh's own: commands, options, and the names of what there is.

_virtsh() {
    local line=${COMP_LINE:0:COMP_POINT} all=() words=() options=() word= value_of= one
    # Not COMP_WORDS: bash parts those at the colons of a URI, too.
    read -ra all <<<"$line"
    if [[ $line != *[[:blank:]] ]]; then
        word=${all[-1]}
        unset 'all[-1]'
    fi
    for one in "${all[@]:1}"; do
        if [[ -n $value_of ]]; then
            options+=("$one")
            value_of=
        elif ((${#words[@]})); then
            words+=("$one")
        else
            case $one in
            -c | -d | -e | -k | -K | -l | --connect | --root)
                options+=("$one")
                value_of=yes
                ;;
            -*) options+=("$one") ;;
            *) words+=("$one") ;;
            esac
        fi
    done
    COMPREPLY=()
    if [[ -n $value_of ]]; then
        return
    fi
    if ((${#words[@]} == 0)) && [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "--connect --escape --help --json --keepalive-count --keepalive-interval
            --log --quiet --readonly --root --timing --version" -- "$word")
        return
    fi
    mapfile -t COMPREPLY < <("${all[0]}" "${options[@]}" --quiet complete -- "${words[@]}" "$word" \
        2>/dev/null </dev/null)
    # What stands before a colon or an equals sign is no part of the word that bash replaces.
    if [[ $word == *[:=]* ]]; then
        one=${word%"${word##*[:=]}"}
        COMPREPLY=("${COMPREPLY[@]#"$one"}")
    fi
}

complete -o default -F _virtsh virtsh
