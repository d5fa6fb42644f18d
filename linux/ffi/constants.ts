import { arch } from 'node:process'

// Numbers of the kernel's headers, the same on x86-64 and arm64 unless a line says otherwise (asm-generic/socket.h, linux/in.h, linux/in6.h, linux/eventpoll.h, bits/fcntl.h).

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10
export const AF_NETLINK = 16

export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
export const SOCK_NONBLOCK = 0x800
export const SOCK_CLOEXEC = 0x8_0000

export const IPPROTO_IP = 0
export const IPPROTO_ICMP = 1
export const IPPROTO_TCP = 6
export const IPPROTO_UDP = 17
export const IPPROTO_IPV6 = 41
export const IPPROTO_SCTP = 132
export const SCTP_NODELAY = 3

export const SOL_SOCKET = 1
export const SO_REUSEADDR = 2
export const SO_ERROR = 4
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
export const SO_KEEPALIVE = 9
export const SO_LINGER = 13
export const SO_REUSEPORT = 15
export const SO_ATTACH_FILTER = 26
export const SO_RCVTIMEO = 20
export const SO_SNDTIMEO = 21
export const SO_SNDBUFFORCE = 32
export const SO_RCVBUFFORCE = 33
export const SO_MARK = 36
export const SO_RXQ_OVFL = 40
export const SO_INCOMING_CPU = 49
export const SO_ATTACH_REUSEPORT_CBPF = 51
export const SO_MEMINFO = 55

export const TCP_NODELAY = 1
export const TCP_KEEPIDLE = 4
export const TCP_KEEPINTVL = 5
export const TCP_KEEPCNT = 6
export const TCP_DEFER_ACCEPT = 9
export const TCP_QUICKACK = 12
export const TCP_USER_TIMEOUT = 18
export const TCP_FASTOPEN = 23

export const IP_PKTINFO = 8
export const IP_MTU_DISCOVER = 10
export const IP_RECVERR = 11
export const IP_FREEBIND = 15
export const IP_TRANSPARENT = 19
export const IP_RECVORIGDSTADDR = 20
export const IP_BIND_ADDRESS_NO_PORT = 24
export const IP_PMTUDISC_PROBE = 3
export const SO_ORIGINAL_DST = 80
export const IPV6_MTU_DISCOVER = 23
export const IPV6_V6ONLY = 26
export const IPV6_RECVPKTINFO = 49
export const IPV6_PKTINFO = 50
export const IPV6_RECVORIGDSTADDR = 74
export const IPV6_TRANSPARENT = 75
export const IPV6_FREEBIND = 78
export const IP6T_SO_ORIGINAL_DST = 80

export const MSG_PEEK = 2
export const MSG_CTRUNC = 8
export const MSG_TRUNC = 0x20
export const MSG_DONTWAIT = 0x40
export const MSG_NOSIGNAL = 0x4000
export const MSG_MORE = 0x8000
export const MSG_WAITFORONE = 0x1_0000

export const SHUT_RD = 0
export const SHUT_WR = 1
export const SHUT_RDWR = 2

export const EPOLLIN = 1
export const EPOLLPRI = 2
export const EPOLLOUT = 4
export const EPOLLERR = 8
export const EPOLLHUP = 0x10
export const EPOLLRDHUP = 0x2000
export const EPOLLEXCLUSIVE = 1 << 28
export const EPOLLET = 1 << 31
export const EPOLL_CTL_ADD = 1
export const EPOLL_CTL_DEL = 2
export const EPOLL_CTL_MOD = 3
export const EPOLL_CLOEXEC = 0x8_0000

/** `struct epoll_event` is packed only on x86-64: events u32 at 0, our 64 bits of data behind. */
export const epollEvent = arch === 'x64' ? { size: 12, data: 4 } : { size: 16, data: 8 }

export const EFD_NONBLOCK = 0x800
export const EFD_CLOEXEC = 0x8_0000

export const O_NONBLOCK = 0x800
export const O_CLOEXEC = 0x8_0000
export const F_GETFL = 3
export const F_SETFL = 4
export const F_SETPIPE_SZ = 1031
export const F_GETPIPE_SZ = 1032
export const SPLICE_F_MOVE = 1
export const SPLICE_F_NONBLOCK = 2
export const SPLICE_F_MORE = 4

export const CLONE_NEWNS = 0x2_0000
export const CLONE_NEWNET = 0x4000_0000
export const PR_SET_TIMERSLACK = 29

/** Numbers for `syscalls.syscall`, by machine. */
export const nr = arch === 'x64' ? { recvmmsg: 299, sendmmsg: 307, ppoll: 271, pidfd_open: 434 } : { recvmmsg: 243, sendmmsg: 269, ppoll: 73, pidfd_open: 434 }

// Layouts, in octets; x86-64 and arm64, glibc and musl agree. iovlen and controllen are written as whole 64-bit words: musl keeps 32 bits and padding that must be 0.
export const iovec = { size: 16, base: 0, len: 8 } as const
export const msghdr = { size: 56, name: 0, namelen: 8, iov: 16, iovlen: 24, control: 32, controllen: 40, flags: 48 } as const
export const mmsghdr = { size: 64, len: 56 } as const
export const cmsghdr = { size: 16, len: 0, level: 8, type: 12, data: 16 } as const
export const sockaddrIn = { size: 16, family: 0, port: 2, address: 4 } as const
export const sockaddrIn6 = { size: 28, family: 0, port: 2, flow: 4, address: 8, scope: 24 } as const
export const sockaddrNl = { size: 12, family: 0, pid: 4, groups: 8 } as const
export const inPktinfo = { size: 12, ifindex: 0, source: 4, address: 8 } as const
export const in6Pktinfo = { size: 20, address: 0, ifindex: 16 } as const

/** Room a control message of `length` octets takes (CMSG_SPACE). */
export const cmsgSpace = (length: number): number => 16 + ((length + 7) & ~7)
