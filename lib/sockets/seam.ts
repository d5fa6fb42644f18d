/** An address and port. `host` is an IP literal without brackets; `''` listens on every address of both families. */
export interface Address {
  readonly host: string
  readonly port: number
}

/** A socket somebody else opened: inherited from a parent, or handed over by another driver or process. */
export interface Descriptor {
  readonly fd: number
}

/** What a handshake told. */
export interface TlsInfo {
  readonly serverName: string | undefined
  readonly alpn: string | undefined
  readonly version: string
  /** DER of the certificate the other side showed and we verified. */
  readonly peerCertificate: Buffer | undefined
}

/** A certificate chain and its key, PEM. */
export interface TlsIdentity {
  readonly cert: string
  readonly key: string
}

/** TLS towards clients. `identity` is asked at each handshake, so certificates are replaced without a restart; undefined refuses the handshake. */
export interface TlsServer {
  identity(serverName: string | undefined): TlsServerIdentity | undefined
  readonly alpn?: readonly string[]
}
export interface TlsServerIdentity extends TlsIdentity {
  /** CAs (PEM) that client certificates are verified against; none are asked for if left out. */
  readonly clientCa?: string
  readonly clientCertificate?: 'request' | 'require'
  readonly minVersion?: 'TLSv1.2' | 'TLSv1.3'
}

/** TLS towards servers; verified unless `verify` is false. */
export interface TlsClient {
  readonly serverName?: string
  readonly ca?: string
  readonly identity?: TlsIdentity
  readonly verify?: boolean
  readonly alpn?: readonly string[]
  /** Groups for the key exchange, e.g. `X25519:P-256`. Default: those of Node's OpenSSL, which begin with one that withstands quantum computers and costs about as much again. */
  readonly groups?: string
}

export interface ListenOptions {
  /** `sctp`: one-to-one SCTP sockets, each message of the sender is one `data`; no half-close. Only `epoll`, where the kernel has SCTP (EPROTONOSUPPORT). Default `tcp`. */
  readonly transport?: 'tcp' | 'sctp'
  readonly backlog?: number
  readonly reusePort?: boolean
  readonly ipv6Only?: boolean
  readonly tls?: TlsServer
  /** Bytes a connection may have waiting to be sent before `write` says false. Default 256 KiB. */
  readonly highWater?: number
  /** Accepts connections to addresses that are not this machine's (IP_TRANSPARENT). */
  readonly transparent?: boolean
  /** `Wire.local` is what the client asked for before a redirect (SO_ORIGINAL_DST). Only `epoll`. */
  readonly originalDestination?: boolean
  /** Shows the first bytes before the protocol is opened; `detach` gives the connection away whole. Only `epoll`. */
  readonly peek?: (first: Buffer, w: Wire) => 'more' | 'keep' | 'detached'
  /** Milliseconds a client has to send what `peek` wants to see; then it is reset. Default 10,000. */
  readonly peekTimeout?: number
  /** Told when the listener fails after it had begun. */
  readonly failed?: (error: Error) => void
}

export interface ConnectOptions {
  readonly transport?: 'tcp' | 'sctp'
  /** Local address to connect from; with `transparent` it may be another machine's. */
  readonly from?: Address
  readonly transparent?: boolean
  /** Milliseconds until an unanswered attempt ends in `closed('timeout …')`. Default 10,000. */
  readonly timeout?: number
  readonly tls?: TlsClient
  readonly highWater?: number
}

export interface BindOptions {
  /**
   * Talks with this peer only: the address to send from is chosen by the route when `at` has no host, others' datagrams are not seen, and `failed`
   * is told when the peer's machine says that nobody is there (`code` ECONNREFUSED); the socket stays usable.
   */
  readonly connect?: Address
  readonly reusePort?: boolean
  /** Only asks others: on a wildcard address one socket that sends from whatever address the route prefers. */
  readonly client?: boolean
  readonly ipv6Only?: boolean
  readonly transparent?: boolean
  /** `Batch.local` is the address the datagram was sent to before a redirect (IP_RECVORIGDSTADDR). Only `epoll`. */
  readonly originalDestination?: boolean
  /** Bytes asked for the receive and the send buffer. Default 4 MiB. */
  readonly bufferSize?: number
  readonly failed?: (error: Error) => void
}

/** One connection as a protocol sees it. */
export interface Wire {
  /** The other side's address, e.g. `10.0.0.7`; never asked from the kernel a second time. */
  readonly peer: string
  readonly peerPort: number
  /** As the client asked for it: behind a redirect or TPROXY, the original destination. */
  readonly local: Address
  /** After a handshake: server name, ALPN, client certificate. */
  readonly tls: TlsInfo | undefined
  /** False from the instant the driver gave it up, before `closed` is told. */
  readonly alive: boolean
  /** Takes the bytes whole: sent now, or copied and sent later. False: above the high-water mark (`drain` follows), or the wire is dead (`closed` follows). `more`: more follows at once. */
  write(b: Buffer, from: number, to: number, more?: boolean): boolean
  /** No more `data` until `resume`. */
  pause(): void
  resume(): void
  /** FIN after what was written. */
  end(): void
  /** Ends it now, with what was not sent; the other side sees a reset. */
  abort(): void
}

/** A protocol's half of one connection. Called one at a time, never from inside one of its own calls into the driver. */
export interface Protocol {
  opened(w: Wire): void
  /** b[from, to) is news. Until it returns the protocol may rewrite it and use b[to, b.length); then the bytes are gone. */
  data(b: Buffer, from: number, to: number): void
  drain(): void
  /** The peer's FIN. Our half stays open until `end`. */
  eof(): void
  /**
   * Exactly once, last. `why` is empty after both sides ended in order; else it begins with the system's name of the error (`ECONNREFUSED`,
   * `ECONNRESET`, `EPIPE` …), or is `aborted` (by us), `timeout: …` or `tls: …`.
   */
  closed(why: string): void
}

/** Datagrams that came together; lent until `received` returns. */
export interface Batch {
  readonly count: number
  /** Holds every datagram of the batch: datagram i is bytes[start(i), end(i)), with room behind up to `room(i)`, which may be written. */
  readonly bytes: Buffer
  start(i: number): number
  end(i: number): number
  room(i: number): number
  peer(i: number): Address
  /** Where datagram i was sent to. */
  local(i: number): Address
  /** Answers datagram i from the address it was sent to; the bytes are taken before it returns. */
  answer(i: number, b: Buffer, from: number, to: number): void
}

/** A bound datagram socket. */
export interface Bound {
  readonly address: Address
  /** Sends one datagram; from `local` if given (an address of the socket). False when the socket's buffer was full and it was dropped. */
  send(b: Buffer, from: number, to: number, peer: Address, local?: Address): boolean
  /** Datagrams lost because the receive buffer was full, as far as the driver can know. */
  readonly dropped: number
  close(): void
}

export interface Listening {
  readonly port: number
  /** Accepts no more; loses nobody (on `node`: nobody but those the system has accepted and Node has not). Connections live on. */
  drain(): void
  /** Stops listening at once. Connections live on. */
  close(): void
}

/** What carries the bytes. */
export interface Driver {
  readonly name: 'node' | 'epoll' | 'memory'
  /** Milliseconds, monotonic, read once a batch. */
  readonly now: number
  /** A buffer that `write` sends without copying. */
  arena(size: number): Buffer
  /** Resolves once it listens; rejects with what was tried and the system's words (EADDRINUSE names address and port). */
  listen(at: Address | Descriptor, accept: () => Protocol, how?: ListenOptions): Promise<Listening>
  /** Writable at once; bytes wait for the handshake. Failure is told by `closed`. */
  connect(at: Address, p: Protocol, how?: ConnectOptions): Wire
  /** Datagrams come and go in batches. An answer leaves from the address the question came to. */
  bind(at: Address | Descriptor, received: (batch: Batch, bound: Bound) => void, how?: BindOptions): Promise<Bound>
  /** Coarse; idle timeouts sweep, they do not arm a timer each. Returns how to stop it. */
  every(ms: number, f: () => void): () => void
  /** One write of a batch of log lines. */
  flush(fd: number, b: Buffer, n: number): void
  /** From now on bytes go between the two by themselves, both ways; `closed` still comes. False: this driver cannot, copy them yourself. */
  splice(a: Wire, b: Wire): boolean
  /** Gives the connection away by its descriptor, before a byte was taken from it. Undefined: this driver cannot. */
  detach(w: Wire): Descriptor | undefined
  /** What secures connections here, and why that and nothing else: for the ready line. */
  readonly tlsBy?: string
  /** What the driver has at this moment, and has counted, by names for /metrics. */
  counts?(): Readonly<Record<string, number>>
  /** Ends every listener and connection of this driver. */
  close(): Promise<void>
}
