// What goes before the completion script for bash. The script takes the words of the line from the package
// bash-completion, which containers and macOS do not have, and it cannot be sourced twice.

/** Lines of bash: ends a second sourcing, and stands in for the one function of bash-completion that the script calls. */
export const bashPreamble = String.raw`# Sourced before in this shell: nothing to do.
if declare -F __arcadia_complete >/dev/null; then return 0 2>/dev/null; fi

# Without the package bash-completion, this part of it is enough. Loaded later, the package replaces it.
if ! declare -F _get_comp_words_by_ref >/dev/null; then
    _get_comp_words_by_ref() {
        local i n=-1
        words=()
        for ((i = 0; i < \${#COMP_WORDS[@]}; i++)); do
            # Bash splits --option=value into three words.
            if ((n >= 0)) && [[ \${COMP_WORDS[i]} == [=:]* || \${words[n]} == *[=:] ]]; then
                words[n]="\${words[n]}\${COMP_WORDS[i]}"
            else
                n=$((n + 1))
                words[n]="\${COMP_WORDS[i]}"
            fi
            if ((i == COMP_CWORD)); then cword=$n; fi
        done
        cur="\${words[cword]}"
        prev="\${words[cword > 0 ? cword - 1 : 0]}"
    }
fi

`.replaceAll(String.raw`\$`, '$');
