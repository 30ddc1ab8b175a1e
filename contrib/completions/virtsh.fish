# Completion of virtsh for fish: put it into ~/.config/fish/completions.
# The candidates are virtsh's own: commands, options, and the names of what there is.

function __virtsh_candidates
    set --local options
    set --local given
    set --local skip 0
    for word in (commandline --tokenize --cut-at-cursor --current-process)[2..-1]
        if test $skip = 1
            set --append options $word
            set skip 0
        else if set --query given[1]
            set --append given $word
        else if contains -- $word -c -d -e -k -K -l --connect --root
            set --append options $word
            set skip 1
        else if string match --quiet -- '-*' $word
            set --append options $word
        else
            set --append given $word
        end
    end
    # Quoted: a word that has only begun to be one is an empty word, and not none.
    set --local last (commandline --current-token --cut-at-cursor)
    test $skip = 0
    and virtsh $options --quiet complete -- $given "$last" 2>/dev/null </dev/null
end

complete --command virtsh --no-files --arguments '(__virtsh_candidates)'
complete --command virtsh --short-option c --long-option connect --require-parameter --description 'what to connect to'
complete --command virtsh --short-option q --long-option quiet --description 'nothing but what was asked for'
complete --command virtsh --short-option r --long-option readonly --description 'only look'
complete --command virtsh --short-option t --long-option timing --description 'say how long each command took'
complete --command virtsh --short-option e --long-option escape --require-parameter --description 'what ends a console'
complete --command virtsh --long-option json --description 'print what was found as JSON'
complete --command virtsh --long-option root --require-parameter --description 'the instance below a directory'
