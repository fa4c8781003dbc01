#!/bin/sh
# Certificates of a cluster, made on its first master as Kubespray and kubeadm would: the same files, names,
# organisations and usages. Says for every host `HOST BASE64`: an archive of what belongs to it, by its place there.
#
#   certificates.sh SERVICE HOST=IP=ROLE...     SERVICE: the first address of services; ROLE: master or worker
#
# What was made stays here and is not made again.
set -eu
service=$1
shift
umask 077
mkdir -p /var/lib/standin/pki
cd /var/lib/standin/pki

issue() { # authority name subject usage names: name.crt and name.key; an authority signs itself
    [ ! -e "$2.crt" ] || return 0
    mkdir -p "$(dirname "$2")"
    by="-CA $1.crt -CAkey $1.key"
    [ "$1" != "$2" ] || by=
    cat >"$2.cnf" <<END
[req]
distinguished_name = subject
prompt = no
[subject]
CN = unused
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyEncipherment, keyCertSign
subjectKeyIdentifier = hash
[client]
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
[server]
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
authorityKeyIdentifier = keyid
subjectAltName = ${5:-DNS:localhost}
END
    # shellcheck disable=SC2086
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -config "$2.cnf" \
        -extensions "$4" -subj "$3" -keyout "$2.key" -out "$2.new" $by 2>"$2.log" || { cat "$2.log" >&2; exit 1; }
    mv "$2.new" "$2.crt"
}

place() { # file host path
    mkdir -p "$(dirname "hosts/$2/$3")"
    cp "$1" "hosts/$2/$3"
}

kubeconfig() { # name
    cat <<END
apiVersion: v1
kind: Config
clusters:
- name: cluster.local
  cluster:
    certificate-authority-data: $(base64 -w0 ca.crt)
    server: https://127.0.0.1:6443
contexts:
- name: kubernetes-admin@cluster.local
  context:
    cluster: cluster.local
    user: kubernetes-admin
current-context: kubernetes-admin@cluster.local
preferences: {}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: $(base64 -w0 "$1.crt")
    client-key-data: $(base64 -w0 "$1.key")
END
}

issue ca ca /CN=kubernetes authority
issue etcd-ca etcd-ca /CN=etcd-ca authority
issue front-proxy-ca front-proxy-ca /CN=front-proxy-ca authority
issue ca admin /O=system:masters/CN=kubernetes-admin client
issue ca apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client client
issue front-proxy-ca front-proxy-client /CN=front-proxy-client client
if [ ! -e sa.pub ]; then
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out sa.key
    openssl pkey -in sa.key -pubout -out sa.pub
fi

for host in "$@"; do
    role=${host##*=} ip=${host#*=}
    ip=${ip%%=*} host=${host%%=*}
    own=own/$host
    issue ca "$own/kubelet" "/O=system:nodes/CN=system:node:$host" client
    place ca.crt "$host" etc/kubernetes/ssl/ca.crt
    cat "$own/kubelet.crt" "$own/kubelet.key" >"$own/kubelet.pem"
    place "$own/kubelet.pem" "$host" var/lib/kubelet/pki/kubelet-client-current.pem
    if [ "$role" = master ]; then
        names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,DNS:$host
        issue ca "$own/apiserver" /CN=kube-apiserver server "$names,IP:127.0.0.1,IP:$ip,IP:$service"
        for name in member admin node; do
            issue etcd-ca "$own/$name" "/CN=etcd-$name-$host" server "DNS:localhost,DNS:$host,IP:127.0.0.1,IP:$ip"
            place "$own/$name.crt" "$host" "etc/ssl/etcd/ssl/$name-$host.pem"
            place "$own/$name.key" "$host" "etc/ssl/etcd/ssl/$name-$host-key.pem"
        done
        place etcd-ca.crt "$host" etc/ssl/etcd/ssl/ca.pem
        for name in ca apiserver-kubelet-client front-proxy-client "$own/apiserver"; do
            place "$name.crt" "$host" "etc/kubernetes/ssl/${name##*/}.crt"
            place "$name.key" "$host" "etc/kubernetes/ssl/${name##*/}.key"
        done
        for name in front-proxy-ca.crt sa.key sa.pub; do
            place "$name" "$host" "etc/kubernetes/ssl/$name"
        done
        kubeconfig admin >"$own/admin.conf"
        place "$own/admin.conf" "$host" etc/kubernetes/admin.conf
    fi
    # Without the folders: those of the host are as they are.
    echo "$host $(cd "hosts/$host" && find . -type f | tar -cz -T - | base64 -w0)"
done
