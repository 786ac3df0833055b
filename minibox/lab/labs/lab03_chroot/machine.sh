# /jail: a root directory of its own, with the programs of the machine.
mkdir /jail
mount -t tmpfs jail /jail
for each in /*; do
    name=${each#/}
    case $name in jail | proc | sys) continue ;; esac
    if [ -L "$each" ]; then
        cp -P "$each" "/jail/$name"
    elif [ -d "$each" ]; then
        mkdir "/jail/$name"
        mount --rbind "$each" "/jail/$name"
    fi
done
