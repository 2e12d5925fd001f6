# What runs at a vantage point, by `sh -s -- MARK SERVERS HOST TOKEN …` over ssh: it fetches tokens as a CA's
# perspective does, and asks the name servers of each name. It writes no file and changes nothing.
#
# Every line that counts begins with MARK; numbers are those of the names, from 0. SERVERS are the name
# servers to ask, with commas between, or - for those that the resolver here names.

unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY POSIXLY_CORRECT
LC_ALL=C
export LC_ALL

has() {
    command -v "$1" >/dev/null 2>&1
}

say() {
    printf '%s %s\n' "$mark" "$*"
}

# fetch FAMILY HOST TOKEN: the answer with its head on standard output. 10 s for the connection, as CAs have it.
fetch() {
    url="http://$2/.well-known/acme-challenge/$3"
    case $tool in
    curl)
        curl -q -sS -i -g ${1:+"-$1"} --noproxy '*' --connect-timeout 10 -m 18 "$url"
        ;;
    wget)
        wget --no-config -nv ${1:+"-$1"} --no-proxy --max-redirect=0 -t 1 -T 10 \
            --save-headers --content-on-error -O - "$url"
        ;;
    plain-wget)
        # Some of these crash at their own limit of time.
        if has timeout; then
            timeout 20 wget -S -O - "$url"
        else
            wget -T 10 -S -O - "$url"
        fi
        ;;
    esac
}

# try NUMBER FAMILY HOST TOKEN
try() {
    family=$2
    [ "$family" = any ] && family=
    say begin "$1" "$2"
    {
        {
            {
                fetch "$family" "$3" "$4"
                printf '%s end %s %s %s\n' "$mark" "$1" "$2" "$?" >&5
            } 2>&3 | head -c 2048 | od -An -v -tx1 | sed "s/^/$mark got $1 $2/"
        } 3>&1 >&4 | head -c 1024 | sed "s/^/$mark said $1 $2 /"
    } 4>&1 5>&1
}

# Names from the DNS are anybody's words: what is not a name or an address is left out.
plain() {
    while read -r word; do
        word=${word%.}
        case $word in
        '' | -* | *[!A-Za-z0-9._:-]*) ;;
        *) printf '%s\n' "$word" ;;
        esac
    done
}

name_servers() {
    case $dns in
    dig)
        dig +noall +answer +time=3 +tries=1 NS "$1" 2>/dev/null |
            sed -n 's/^[^;[:space:]]*[[:space:]].*[[:space:]]IN[[:space:]]*NS[[:space:]]*//p'
        ;;
    host)
        host -W 3 -R 1 -t NS "$1" 2>/dev/null | sed -n 's/.* name server //p'
        ;;
    nslookup)
        nslookup -type=ns "$1" 2>/dev/null | sed -n 's/.*nameserver = //p'
        ;;
    esac | head -n 8 | plain
}

addresses() {
    case $1 in
    *:*) printf '%s\n' "$1" ;;
    *[!0-9.]*)
        if has getent; then
            getent ahosts "$1" | cut -d ' ' -f 1 | sort -u
        else
            printf '%s\n' "$1"
        fi
        ;;
    *) printf '%s\n' "$1" ;;
    esac | head -n 4 | plain
}

# ask NUMBER SERVER ADDRESS TRANSPORT NAME
ask() {
    case $dns-$4 in
    dig-udp) said=$(dig +notcp +ignore +norecurse +time=3 +tries=2 "@$3" A "$5" 2>/dev/null | status) ;;
    dig-tcp) said=$(dig +tcp +norecurse +time=3 +tries=1 "@$3" A "$5" 2>/dev/null | status) ;;
    host-udp) said=$(host -v -U -r -W 3 -R 2 -t A "$5" "$3" 2>/dev/null | status) ;;
    host-tcp) said=$(host -v -T -r -W 3 -R 1 -t A "$5" "$3" 2>/dev/null | status) ;;
    nslookup-udp) nslookup "$5" "$3" >/dev/null 2>&1 && said=NOERROR || said=none ;;
    *-tcp)
        if has bash && has timeout; then
            timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/53"' "$3" 2>/dev/null && said=connected || said=none
        else
            said=untried
        fi
        ;;
    *) said=untried ;;
    esac
    say dns "$1" "$2" "$3" "$4" "${said:-none}"
}

status() {
    sed -n 's/^;; ->>HEADER<<-.* status: \([A-Z]*\),.*/\1/p' | head -n 1
}

# zone NUMBER NAME
zone() {
    servers=$given
    above=$2
    while [ -z "$servers" ] && [ "$dns" != none ]; do
        servers=$(name_servers "$above")
        case $above in
        *.*) above=${above#*.} ;;
        *) break ;;
        esac
    done
    for server in $servers; do
        for address in $(addresses "$server"); do
            ask "$1" "$server" "$address" udp "$2" &
            ask "$1" "$server" "$address" tcp "$2" &
        done
    done
    wait
}

# one NUMBER HOST TOKEN
one() {
    case $2 in
    \[*\]) try "$1" 6 "$2" "$3" ;;
    *[!0-9.]*)
        four= six=
        for address in $(addresses_of "$2"); do
            say address "$1" "$address"
            case $address in
            *:*) six=6 ;;
            *) four=4 ;;
            esac
        done
        zone "$1" "$2" &
        # A family of its own cannot be asked for by every wget.
        [ "$tool" = plain-wget ] && four= six=
        if [ -z "$four$six" ]; then
            try "$1" any "$2" "$3" &
        fi
        [ -n "$six" ] && try "$1" 6 "$2" "$3" &
        [ -n "$four" ] && try "$1" 4 "$2" "$3" &
        wait
        ;;
    *) try "$1" 4 "$2" "$3" ;;
    esac
}

addresses_of() {
    has getent && getent ahosts "$1" | cut -d ' ' -f 1 | sort -u | head -n 16 | plain
}

main() {
    mark=$1 given=
    [ "$2" = - ] || given=$(printf '%s' "$2" | tr , ' ')
    shift 2
    tool=none dns=none
    if has curl; then
        tool=curl
    elif has wget; then
        tool=plain-wget
        wget --version 2>/dev/null | head -n 1 | grep -q 'GNU Wget' && tool=wget
    fi
    for program in nslookup host dig; do
        has "$program" && dns=$program
    done
    say tools "$tool" "$dns"
    # Address and port of both ends, as sshd has them.
    case ${SSH_CONNECTION-} in
    *[!0-9A-Fa-f.:%\ ]*) ;;
    *) say connection "${SSH_CONNECTION-}" ;;
    esac
    if has ip; then
        ip -o addr show scope global 2>/dev/null |
            sed -n 's/.* inet6\{0,1\} \([0-9A-Fa-f.:]*\).*/\1/p' | head -n 16 |
            while read -r own; do
                say own "$own"
            done
    fi
    number=0
    if [ "$tool" != none ]; then
        while [ $# -gt 1 ]; do
            one "$number" "$1" "$2" &
            number=$((number + 1))
            shift 2
        done
        wait
    fi
    say done
}

main "$@" </dev/null
