import { createHash } from 'node:crypto'
import { alertRecord, readClientHello } from '../../lib/sockets/clienthello.ts'
import { rootCertificates } from '../../lib/sockets/node/tls.ts'
import type { Address, Protocol, TlsClient, TlsInfo, TlsServer, TlsServerIdentity, Wire } from '../../lib/sockets/seam.ts'
import { Arena } from '../ffi/ffi.ts'
import { cString, lend, openssl, type Openssl } from '../ffi/openssl.ts'
import { throwaway } from './throwaway.ts'
import { TicketKeys, ticketKeys, ticketKeySize } from './tickets.ts'

/** Milliseconds both sides have for a handshake. */
const handshakeTimeout = 10_000
/** Handshakes under way at once; more are turned away. */
const mostHandshakes = 8192
/** Contexts kept; the one not asked for longest goes first, and lives on in its connections. */
const mostContexts = 1024

// Offsets in the arena that all filters share between two calls.
const plainAt = 0
const plainSize = 32 * 1024
const plainRoom = 16 * 1024
const cipherAt = plainAt + plainSize + plainRoom
const cipherSize = 256 * 1024
const copyAt = cipherAt + cipherSize
const copySize = 64 * 1024
const textAt = copyAt + copySize // names, errors, cells
const textSize = 16 * 1024
const cellAt = textAt + textSize
const keysAt = cellAt + 64 // of tickets: copied from the shared ones, then what OpenSSL is told of them
const macAt = keysAt + Math.ceil((ticketKeys * ticketKeySize) / 64) * 64
const arenaSize = macAt + 256

/** What handshakes may take. */
export interface TlsLimits {
  /** Handshakes under way at once; more are turned away. */
  readonly handshakes: number
  /** Milliseconds both sides have for one. */
  readonly timeout: number
}

/** What is counted: every SSL made is freed. */
export interface TlsCounts {
  made: number
  freed: number
  handshakes: number
  resumed: number
  failed: number
}

/** TLS as a filter on the seam: a protocol to the connection below, a wire to the protocol above. By the OpenSSL inside Node, over memory only. */
export class Tls {
  readonly counts: TlsCounts = { made: 0, freed: 0, handshakes: 0, resumed: 0, failed: 0 }
  readonly ssl: Openssl
  readonly arena = new Arena(arenaSize)
  readonly plain: Buffer
  readonly cipher: Buffer
  readonly shaking = new Set<Filter>()
  readonly #servers = new Contexts<TlsServerIdentity>(
    (i, alpn) => this.#serverContext(i, alpn),
    (ctx) => this.ssl.SSL_CTX_free(ctx),
  )
  readonly #clients = new Contexts<TlsClient>(
    (how) => this.#clientContext(how),
    (ctx) => this.ssl.SSL_CTX_free(ctx),
  )
  /** What comes and what goes lies here between two calls only: one pair serves all connections, so an idle one keeps no buffer. */
  readonly coming: number
  readonly going: number
  readonly limits: TlsLimits
  readonly #keys: TicketKeys
  readonly #accepting: number
  readonly #selecting: number
  readonly #sealing: number
  #keysVersion = -1
  #user: Filter | undefined
  /** The protocols a server speaks, while one of its handshakes runs. */
  #offers: readonly string[] = []
  #names: Arena | undefined

  constructor(ssl: Openssl, keys: TicketKeys = new TicketKeys(), limits: Partial<TlsLimits> = {}) {
    this.ssl = ssl
    this.#keys = keys
    this.limits = { handshakes: mostHandshakes, timeout: handshakeTimeout, ...limits }
    this.coming = this.#memoryBio()
    this.going = this.#memoryBio()
    this.plain = this.arena.buffer.subarray(plainAt, plainAt + plainSize + plainRoom)
    this.cipher = this.arena.buffer.subarray(cipherAt, cipherAt + cipherSize)
    // Certificates that are only asked for do not fail a handshake; whether they were right is asked afterwards.
    this.#accepting = ssl.callback('int', ['int', 'uintptr_t'], () => 1)
    this.#sealing = ssl.callback('int', ['uintptr_t', 'uintptr_t', 'uintptr_t', 'uintptr_t', 'uintptr_t', 'int'], (_ssl, name, iv, cipher, mac, seals) =>
      this.#seal(name!, iv!, cipher!, mac!, seals === 1),
    )
    this.#selecting = ssl.callback('int', ['uintptr_t', 'uintptr_t', 'uintptr_t', 'uintptr_t', 'uint', 'uintptr_t'], (_ssl, out, outLength, list, length) =>
      this.#select(out!, outLength!, list!, length!),
    )
  }

  #memoryBio(): number {
    const bio = this.ssl.BIO_new(this.ssl.BIO_s_mem())
    // An empty one asks for more instead of saying that it has ended.
    this.ssl.BIO_ctrl(bio, 130 /* SET_BUF_MEM_EOF_RETURN */, -1, 0)
    return bio
  }

  /** What lies in `coming` is `filter`'s from now on; who had something there takes it back. */
  lend(filter: Filter | undefined): void {
    if (this.#user === filter) return
    this.#user?.takeBack()
    this.#user = filter
  }

  /** Seals a ticket, or opens one: tells OpenSSL with which key. */
  #seal(name: number, iv: number, cipher: number, mac: number, seals: boolean): number {
    // An exception must not leave a callback.
    try {
      const { ssl, arena } = this
      if (this.#keys.version !== this.#keysVersion) this.#keysVersion = this.#keys.copy(arena.buffer, keysAt)
      let i = 0
      if (seals) {
        ssl.memcpy(name, arena.pointer(keysAt, keysAt + 16), 16)
        if (ssl.RAND_bytes(iv, 16) !== 1) return -1
      } else {
        const asked = ssl.peek(name, 16)
        while (i < ticketKeys && arena.buffer.compare(asked, 0, 16, keysAt + i * ticketKeySize, keysAt + i * ticketKeySize + 16) !== 0) i++
        if (i === ticketKeys) return 0 // unknown: a full handshake
      }
      const at = keysAt + i * ticketKeySize + 16
      const init = seals ? ssl.EVP_EncryptInit_ex : ssl.EVP_DecryptInit_ex
      if (init(cipher, ssl.EVP_aes_256_cbc(), 0, arena.pointer(at, at + 32), iv) !== 1) return -1
      // OSSL_PARAM key, OSSL_PARAM digest, end: name, type, value, its length, what is returned.
      const b = arena.buffer
      b.fill(0, macAt, macAt + 120)
      b.write('key\0digest\0SHA256\0', macAt + 128, 'latin1')
      arena.setPointer(macAt, arena, macAt + 128, macAt + 132)
      b.writeUInt32LE(5 /* OCTET_STRING */, macAt + 8)
      arena.setPointer(macAt + 16, arena, at + 32, at + 64)
      b.writeUInt32LE(32, macAt + 24)
      arena.setPointer(macAt + 40, arena, macAt + 132, macAt + 139)
      b.writeUInt32LE(4 /* UTF8_STRING */, macAt + 48)
      arena.setPointer(macAt + 56, arena, macAt + 139, macAt + 146)
      b.writeUInt32LE(6, macAt + 64)
      if (ssl.EVP_MAC_CTX_set_params(mac, arena.pointer(macAt, macAt + 120)) !== 1) return -1
      // 2: opened, and a new one is wanted; in TLS 1.3 each is used once.
      return seals ? 1 : 2
    } catch {
      return -1
    }
  }

  /** The half for an accepted connection. `accept` is asked for a protocol once the handshake is done. */
  server(how: TlsServer, accept: () => Protocol, now: () => number): Protocol {
    return new Filter(this, { server: how, accept, now })
  }

  /** The half for a connection to a server: give it to `connect` and the result to `attach`; the filter is the wire above. */
  client(how: TlsClient, host: string, protocol: Protocol, now: () => number): Filter {
    return new Filter(this, { client: how, host, protocol, now })
  }

  /** Ends handshakes that take too long; call it now and then. */
  sweep(now: number): void {
    for (const filter of this.shaking) if (filter.deadline <= now) filter.fail('timeout: no TLS handshake in time')
  }

  contextFor(identity: TlsServerIdentity, alpn: readonly string[]): number {
    return this.#servers.get(identity, alpn)
  }
  contextOf(how: TlsClient): number {
    return this.#clients.get(how, how.alpn ?? [])
  }

  /** Runs a step of a server's handshake, which may ask what protocols it speaks. */
  withOffers(alpn: readonly string[], f: () => number): number {
    this.#offers = alpn
    return f()
  }

  #select(out: number, outLength: number, list: number, length: number): number {
    // An exception must not leave a callback.
    try {
      const wanted = this.ssl.peek(list, length)
      const offered: string[] = []
      for (let at = 0; at < wanted.length; at += 1 + wanted[at]!) offered.push(wanted.toString('latin1', at + 1, at + 1 + wanted[at]!))
      const chosen = this.#offers.find((name) => offered.includes(name))
      if (chosen === undefined) return 2 // SSL_TLSEXT_ERR_ALERT_FATAL
      // The name must live on: in memory of its own, at a place of its own.
      this.#names ??= new Arena(4096)
      const at = this.#nameAt(chosen)
      this.arena.setPointer(cellAt, this.#names, at, at + chosen.length)
      this.ssl.memcpy(out, this.arena.pointer(cellAt, cellAt + 8), 8)
      this.arena.buffer[cellAt + 8] = chosen.length
      this.ssl.memcpy(outLength, this.arena.pointer(cellAt + 8, cellAt + 9), 1)
      return 0
    } catch {
      return 2
    }
  }

  readonly #placed = new Map<string, number>()
  #nameAt(name: string): number {
    let at = this.#placed.get(name)
    if (at === undefined) {
      at = [...this.#placed.keys()].reduce((sum, n) => sum + n.length, 0)
      this.#names!.buffer.write(name, at, 'latin1')
      this.#placed.set(name, at)
    }
    return at
  }

  #serverContext(i: TlsServerIdentity, alpn: readonly string[]): number {
    const { ssl } = this
    const ctx = this.#newContext(ssl.TLS_server_method(), i.minVersion)
    try {
      this.#identity(ctx, i)
      // Without it a client that shows a certificate cannot resume.
      lend(this.arena, textAt, 'switchyard', (p, n) => ssl.SSL_CTX_set_session_id_context(ctx, p, n))
      ssl.SSL_CTX_ctrl(ctx, 44 /* SET_SESS_CACHE_MODE */, 0, 0)
      ssl.SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, this.#sealing)
      // Whoever resumes gets the next one; a second ticket costs every handshake and most clients use one.
      ssl.SSL_CTX_set_num_tickets(ctx, 1)
      if (i.clientCa !== undefined) {
        this.#trust(ctx, i.clientCa, true)
        if (i.clientCertificate === 'require') ssl.SSL_CTX_set_verify(ctx, 1 | 2 /* PEER, FAIL_IF_NO_PEER_CERT */, 0)
        else ssl.SSL_CTX_set_verify(ctx, 1, this.#accepting)
      }
      if (alpn.length > 0) ssl.SSL_CTX_set_alpn_select_cb(ctx, this.#selecting, 0)
      return ctx
    } catch (error) {
      ssl.SSL_CTX_free(ctx)
      throw error
    }
  }

  #clientContext(how: TlsClient): number {
    const { ssl } = this
    const ctx = this.#newContext(ssl.TLS_client_method(), undefined)
    try {
      if (how.identity !== undefined) this.#identity(ctx, how.identity)
      if (how.verify !== false) {
        this.#trust(ctx, how.ca ?? rootCertificates.join('\n'), false)
        ssl.SSL_CTX_set_verify(ctx, 1, 0)
      } else ssl.SSL_CTX_set_verify(ctx, 0, 0)
      if (how.groups !== undefined && lend(this.arena, textAt, how.groups, (p) => ssl.SSL_CTX_ctrl(ctx, 92 /* SET_GROUPS_LIST */, 0, p)) !== 1) throw new Error(`groups ${how.groups}: ${this.error()}`)
      if (how.alpn !== undefined && how.alpn.length > 0) {
        const list = how.alpn.map((name) => String.fromCharCode(name.length) + name).join('')
        this.arena.buffer.write(list, textAt, 'latin1')
        if (ssl.SSL_CTX_set_alpn_protos(ctx, this.arena.pointer(textAt, textAt + list.length), list.length) !== 0) throw new Error('bad ALPN list')
      }
      return ctx
    } catch (error) {
      ssl.SSL_CTX_free(ctx)
      throw error
    }
  }

  #newContext(method: number, minVersion: 'TLSv1.2' | 'TLSv1.3' | undefined): number {
    const { ssl } = this
    const ctx = ssl.SSL_CTX_new(method)
    if (ctx === 0) throw new Error(this.error())
    // The chain is what was given; to look for the rest of it among the CAs at every handshake would cost, and might show what is for clients.
    ssl.SSL_CTX_ctrl(ctx, 33 /* MODE */, 2 | 8 | 0x10 /* ACCEPT_MOVING_WRITE_BUFFER, NO_AUTO_CHAIN, RELEASE_BUFFERS */, 0)
    ssl.SSL_CTX_ctrl(ctx, 123 /* SET_MIN_PROTO_VERSION */, minVersion === 'TLSv1.3' ? 0x0304 : 0x0303, 0)
    return ctx
  }

  #identity(ctx: number, { cert, key }: { readonly cert: string; readonly key: string }): void {
    const { ssl } = this
    let n = 0
    this.#certificates(cert, (x) => {
      // The first is ours, the others lead to the CA. 89 is CHAIN_CERT; 1 takes a reference.
      const done = n++ === 0 ? ssl.SSL_CTX_use_certificate(ctx, x) : ssl.SSL_CTX_ctrl(ctx, 89, 1, x)
      if (done !== 1) throw new Error(`certificate refused: ${this.error()}`)
    })
    if (n === 0) throw new Error(`no certificate: ${this.error()}`)
    const pkey = this.#pem(key, (bio) => ssl.PEM_read_bio_PrivateKey(bio, 0, 0, 0))
    if (pkey === 0) throw new Error(`no private key: ${this.error()}`)
    const used = ssl.SSL_CTX_use_PrivateKey(ctx, pkey)
    ssl.EVP_PKEY_free(pkey)
    if (used !== 1 || ssl.SSL_CTX_check_private_key(ctx) !== 1) throw new Error(`key and certificate do not fit: ${this.error()}`)
    ssl.ERR_clear_error()
  }

  #trust(ctx: number, pem: string, ask: boolean): void {
    const { ssl } = this
    const store = ssl.SSL_CTX_get_cert_store(ctx)
    this.#certificates(pem, (x) => {
      ssl.X509_STORE_add_cert(store, x)
      if (ask) ssl.SSL_CTX_add_client_CA(ctx, x)
    })
    ssl.ERR_clear_error()
  }

  #certificates(pem: string, each: (x509: number) => void): void {
    const { ssl } = this
    this.#pem(pem, (bio) => {
      for (;;) {
        const x = ssl.PEM_read_bio_X509(bio, 0, 0, 0)
        // The end of the list is an error in the queue as well.
        if (x === 0) break
        try {
          each(x)
        } finally {
          ssl.X509_free(x)
        }
      }
      return 0
    })
    ssl.ERR_clear_error()
  }

  #pem(text: string, f: (bio: number) => number): number {
    const { ssl } = this
    const length = Buffer.byteLength(text)
    // Bundles are long; memory of their own, for good, only when they do not fit.
    const fits = length < copySize
    const arena = fits ? this.arena : (this.#big ??= new Arena(4 * 1024 * 1024))
    const at = fits ? copyAt : 0
    if (length >= arena.size - at) throw new Error(`${length} octets of PEM are too many`)
    arena.buffer.write(text, at, 'latin1')
    const bio = ssl.BIO_new_mem_buf(arena.pointer(at, at + length), length)
    try {
      return f(bio)
    } finally {
      ssl.BIO_free(bio)
      arena.buffer.fill(0, at, at + length)
    }
  }
  #big: Arena | undefined

  /** The oldest error of the queue in words; the queue is empty afterwards, or the next `SSL_get_error` would lie. */
  error(): string {
    const { ssl, arena } = this
    const code = ssl.ERR_get_error()
    ssl.ERR_clear_error()
    if (code === 0) return 'unknown error'
    ssl.ERR_error_string_n(code, arena.pointer(textAt, textAt + 512), 512)
    const text = arena.buffer.toString('latin1', textAt, arena.buffer.indexOf(0, textAt))
    return text.slice(text.lastIndexOf(':') + 1)
  }
}

/** Contexts by what they were made from; texts are compared when the objects are new. */
class Contexts<T extends object> {
  readonly #make: (how: T, alpn: readonly string[]) => number
  readonly #free: (ctx: number) => void
  readonly #byObject = new WeakMap<T, { readonly text: string; readonly alpn: readonly string[] }>()
  readonly #byText = new Map<string, number>()

  constructor(make: (how: T, alpn: readonly string[]) => number, free: (ctx: number) => void) {
    this.#make = make
    this.#free = free
  }

  get(how: T, alpn: readonly string[]): number {
    let known = this.#byObject.get(how)
    if (known === undefined || known.alpn !== alpn) {
      known = {
        text: createHash('sha256')
          .update(JSON.stringify([how, alpn]))
          .digest('base64'),
        alpn,
      }
      this.#byObject.set(how, known)
    }
    let ctx = this.#byText.get(known.text)
    if (ctx !== undefined) return ctx
    ctx = this.#make(how, alpn)
    if (this.#byText.size >= mostContexts) {
      for (const [text, old] of this.#byText) {
        this.#byText.delete(text)
        this.#free(old)
        break
      }
    }
    this.#byText.set(known.text, ctx)
    return ctx
  }
}

type Side =
  | { readonly server: TlsServer; readonly accept: () => Protocol; readonly now: () => number }
  | { readonly client: TlsClient; readonly host: string; readonly protocol: Protocol; readonly now: () => number }

const noAlpn: readonly string[] = []

/** One secured connection. */
export class Filter implements Protocol, Wire {
  tls: TlsInfo | undefined
  deadline = 0
  readonly #tls: Tls
  readonly #side: Side
  #below!: Wire
  #above: Protocol | undefined
  #ssl = 0
  /** What came while it was paused, or could not be read yet. */
  #left: Buffer | undefined
  /** Nothing of ours lies in `coming`. */
  #drained = true
  #hello: Buffer | undefined
  #serverName: string | undefined
  /** The client is asked for a certificate. */
  #asks = false
  #done = false
  #paused = false
  #scheduled = false
  #ended = false
  #eof = false
  #dead = false
  #why: string | undefined
  #waiting: Buffer[] = []
  #inside = false

  constructor(tls: Tls, side: Side) {
    this.#tls = tls
    this.#side = side
    if ('client' in side) {
      this.#above = side.protocol
      this.#serverName = side.client.serverName
    }
  }

  /** What `connect` gave for this filter. */
  attach(below: Wire): this {
    this.#below = below
    return this
  }

  get peer(): string {
    return this.#below.peer
  }
  get peerPort(): number {
    return this.#below.peerPort
  }
  get local(): Address {
    return this.#below.local
  }
  get alive(): boolean {
    return !this.#dead && this.#below.alive
  }

  // The protocol of the connection below.

  opened(w: Wire): void {
    this.#below = w
    this.deadline = this.#side.now() + this.#tls.limits.timeout
    if (this.#tls.shaking.size >= this.#tls.limits.handshakes) return this.fail('tls: too many handshakes at once')
    this.#tls.shaking.add(this)
    if (!('client' in this.#side)) return
    const { client, host } = this.#side
    const { ssl, arena } = this.#tls
    try {
      this.#open(this.#tls.contextOf(client))
    } catch (error) {
      return this.fail(`tls: ${error instanceof Error ? error.message : String(error)}`)
    }
    ssl.SSL_set_connect_state(this.#ssl)
    const name = client.serverName ?? host
    const isAddress = /^[\d.]+$|:/.test(name)
    // A name, never an address: RFC 6066 forbids addresses in SNI.
    if (!isAddress) lend(arena, textAt, name, (p) => ssl.SSL_ctrl(this.#ssl, 55 /* SET_TLSEXT_HOSTNAME */, 0, p))
    if (client.verify !== false) {
      if (isAddress) lend(arena, textAt, name, (p) => ssl.X509_VERIFY_PARAM_set1_ip_asc(ssl.SSL_get0_param(this.#ssl), p))
      else lend(arena, textAt, name, (p) => ssl.SSL_set1_host(this.#ssl, p))
    }
    this.#step()
  }

  data(b: Buffer, from: number, to: number): void {
    if (this.#dead || this.#eof) return
    if (this.#ssl === 0) {
      const first = this.#hello === undefined ? b.subarray(from, to) : Buffer.concat([this.#hello, b.subarray(from, to)])
      if (!this.#greeted(first)) return
      this.#feed(first, 0, first.length)
    } else if (this.#left === undefined) this.#feed(b, from, to)
    else this.#left = Buffer.concat([this.#left, b.subarray(from, to)])
    this.#step()
  }

  drain(): void {
    if (this.#done && !this.#dead) this.#above?.drain()
  }

  eof(): void {
    if (this.#dead) return
    if (!this.#done) return this.fail('tls: the other side went away during the handshake')
    this.#sawEof()
  }

  closed(why: string): void {
    this.#dead = true
    this.#tls.shaking.delete(this)
    this.#free()
    if (this.#done || 'client' in this.#side) this.#above?.closed(this.#why ?? why)
  }

  // The wire of the protocol above.

  write(b: Buffer, from: number, to: number, more = false): boolean {
    if (this.#dead || this.#ended || !this.#below.alive) return false
    if (from < 0 || to > b.length || from > to) throw new RangeError(`write of [${from}, ${to}) from a buffer of ${b.length} octets`)
    if (!this.#done) {
      this.#waiting.push(Buffer.from(b.subarray(from, to)))
      return true
    }
    const { ssl, arena: own } = this.#tls
    const arena = Arena.of(b)
    for (let at = from; at < to;) {
      const size = Math.min(to - at, copySize)
      let pointer: number
      if (arena === undefined) {
        b.copy(own.buffer, copyAt, at, at + size)
        pointer = own.pointer(copyAt, copyAt + size)
      } else {
        const offset = b.byteOffset - arena.buffer.byteOffset + at
        pointer = arena.pointer(offset, offset + size)
      }
      const n = ssl.SSL_write(this.#ssl, pointer, size)
      if (n <= 0) {
        this.fail(`tls: ${this.#tls.error()}`)
        return false
      }
      at += n
      if (at < to) this.#send(true)
    }
    return this.#send(more)
  }

  pause(): void {
    this.#paused = true
    this.#below.pause()
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    if (this.#dead) return
    this.#below.resume()
    // What was decrypted, or lies ready to be, waits for nobody below.
    this.#schedule()
  }

  end(): void {
    if (this.#ended || this.#dead) return
    this.#ended = true
    if (this.#done) this.#goodbye()
  }

  abort(): void {
    this.fail('aborted')
  }

  /** Ends it for this reason, which is told above. */
  fail(why: string): void {
    if (this.#dead) return
    this.#dead = true
    this.#why = why
    this.#tls.shaking.delete(this)
    if (!this.#done) this.#tls.counts.failed++
    // What is not sent must not be sent by the next one.
    this.#tls.ssl.BIO_ctrl(this.#tls.going, 1 /* RESET */, 0, 0)
    this.#below.abort()
  }

  #greeted(first: Buffer): boolean {
    if (!('server' in this.#side)) return false
    const said = readClientHello(first, 0, first.length)
    if (said === 'more') {
      this.#hello = Buffer.from(first)
      return false
    }
    this.#hello = undefined
    if (said === 'bad') return this.#refuse(50)
    this.#serverName = said.serverName
    const identity = this.#side.server.identity(said.serverName)
    if (identity === undefined) return this.#refuse(112)
    try {
      // A client that asks for no protocol gets none; one that does must find one.
      this.#asks = identity.clientCa !== undefined
      this.#open(this.#tls.contextFor(identity, this.#side.server.alpn ?? noAlpn))
    } catch {
      return this.#refuse(80)
    }
    this.#tls.ssl.SSL_set_accept_state(this.#ssl)
    return true
  }

  /** Says why in an alert, then ends. */
  #refuse(alert: number): false {
    const record = alertRecord(alert)
    this.#below.write(record, 0, record.length)
    this.#quit('tls: refused')
    return false
  }

  /** Ends after what was sent; a reset could destroy the alert on its way. */
  #quit(why: string): void {
    this.#dead = true
    this.#why = why
    this.#tls.shaking.delete(this)
    if (!this.#done) this.#tls.counts.failed++
    const below = this.#below
    below.end()
    below.resume()
    // Whoever does not close on an alert is left to the idle sweep of the kernel's keep-alive; usually they close at once.
    setTimeout(() => below.abort(), 1000).unref()
  }

  #open(ctx: number): void {
    const { ssl, counts } = this.#tls
    this.#ssl = ssl.SSL_new(ctx)
    if (this.#ssl === 0) throw new Error(this.#tls.error())
    counts.made++
    const { coming, going } = this.#tls
    // SSL_free lets go of both.
    ssl.BIO_up_ref(coming)
    ssl.BIO_up_ref(going)
    ssl.SSL_set_bio(this.#ssl, coming, going)
  }

  #free(): void {
    if (this.#ssl === 0) return
    this.#tls.ssl.SSL_free(this.#ssl)
    this.#tls.counts.freed++
    this.#ssl = 0
    this.#waiting = []
  }

  #feed(b: Buffer, from: number, to: number): void {
    const { ssl, arena: own, coming } = this.#tls
    const arena = Arena.of(b)
    this.#tls.lend(this)
    this.#drained = false
    if (arena !== undefined) {
      const offset = b.byteOffset - arena.buffer.byteOffset
      ssl.BIO_write(coming, arena.pointer(offset + from, offset + to), to - from)
      return
    }
    for (let at = from; at < to;) {
      const size = Math.min(to - at, copySize)
      b.copy(own.buffer, copyAt, at, at + size)
      ssl.BIO_write(coming, own.pointer(copyAt, copyAt + size), size)
      at += size
    }
  }

  /** Goes on as far as what has come allows. */
  #step(): void {
    if (this.#inside || this.#ssl === 0 || this.#dead) return
    this.#inside = true
    try {
      do {
        const left = this.#left
        this.#left = undefined
        if (left !== undefined) this.#feed(left, 0, left.length)
        if (!this.#done && !this.#shake()) return
        this.#read()
      } while (this.#left !== undefined && !this.#paused && !this.#dead && !this.#eof)
    } finally {
      this.#inside = false
      this.#tls.lend(undefined)
    }
  }

  /** Takes what is still ours out of the memory that all share. */
  takeBack(): void {
    if (this.#drained) return
    this.#drained = true
    const { ssl, arena, coming } = this.#tls
    if (this.#dead || this.#eof || this.#ssl === 0) return void ssl.BIO_ctrl(coming, 1 /* RESET */, 0, 0)
    const parts: Buffer[] = this.#left === undefined ? [] : [this.#left]
    for (;;) {
      const n = ssl.BIO_read(coming, arena.pointer(copyAt, copyAt + copySize), copySize)
      if (n <= 0) break
      parts.push(Buffer.from(arena.buffer.subarray(copyAt, copyAt + n)))
    }
    this.#left = parts.length === 0 ? undefined : Buffer.concat(parts)
  }

  #shake(): boolean {
    const { ssl, counts } = this.#tls
    const r = 'server' in this.#side ? this.#tls.withOffers(this.#side.server.alpn ?? noAlpn, () => ssl.SSL_do_handshake(this.#ssl)) : ssl.SSL_do_handshake(this.#ssl)
    if (r !== 1) {
      const e = ssl.SSL_get_error(this.#ssl, r)
      if (e === 2 /* WANT_READ */) {
        this.#drained = true
        this.#send(false)
        return false
      }
      const verified = ssl.SSL_get_verify_result(this.#ssl)
      const words = this.#tls.error()
      const why = 'client' in this.#side && verified !== 0 ? `tls: ${cString(ssl.X509_verify_cert_error_string(verified))}` : `tls: ${words}`
      this.#send(false)
      this.#quit(why)
      return false
    }
    this.#done = true
    this.#tls.shaking.delete(this)
    counts.handshakes++
    if (ssl.SSL_session_reused(this.#ssl) === 1) counts.resumed++
    this.tls = this.#info()
    // In TLS 1.3 only a ticket is left for a server to say: it goes with the first answer, or by itself after 200 ms.
    this.#send('server' in this.#side && this.tls.version === 'TLSv1.3')
    if ('server' in this.#side) this.#above = this.#side.accept()
    this.#above!.opened(this)
    for (const b of this.#waiting.splice(0)) if (!this.#dead) this.#writeNow(b)
    if (this.#ended && !this.#dead) this.#goodbye()
    return !this.#dead
  }

  /** What was written before the handshake was done, also when the end was asked for meanwhile. */
  #writeNow(b: Buffer): void {
    const ended = this.#ended
    this.#ended = false
    this.write(b, 0, b.length)
    this.#ended = ended
  }

  #read(): void {
    const { ssl, arena, plain, coming, going } = this.#tls
    const pointer = arena.pointer(plainAt, plainAt + plainSize)
    while (!this.#paused && !this.#dead && !this.#eof && this.#ssl !== 0) {
      const n = ssl.SSL_read(this.#ssl, pointer, plainSize)
      if (n > 0) {
        // A record is read whole, so what is left lies in `coming`; asking it is cheaper than a read that finds nothing. 10 is PENDING.
        this.#drained = ssl.BIO_ctrl(coming, 10, 0, 0) === 0
        // An answer to what came (a new key) must be gone before anybody else may write.
        if (ssl.BIO_ctrl(going, 10, 0, 0) !== 0) this.#send(false)
        this.#above!.data(plain, 0, n)
        if (this.#drained) return
        continue
      }
      const e = ssl.SSL_get_error(this.#ssl, n)
      if (e === 2) this.#drained = true
      // An answer to what came: a new key, for instance.
      this.#send(false)
      if (e === 6 /* ZERO_RETURN: close_notify */) this.#sawEof()
      else if (e !== 2) {
        const why = `tls: ${this.#tls.error()}`
        if (!this.#dead) this.#quit(why)
      }
      return
    }
  }

  #sawEof(): void {
    if (this.#eof) return
    this.#eof = true
    this.#above!.eof()
  }

  #info(): TlsInfo {
    const { ssl, arena } = this.#tls
    ssl.SSL_get0_alpn_selected(this.#ssl, arena.pointer(cellAt, cellAt + 8), arena.pointer(cellAt + 8, cellAt + 12))
    const at = Number(arena.buffer.readBigUInt64LE(cellAt))
    const length = arena.buffer.readUInt32LE(cellAt + 8)
    const version = ssl.SSL_version(this.#ssl)
    return {
      serverName: this.#serverName !== undefined && !/^[\d.]+$|:/.test(this.#serverName) ? this.#serverName : undefined,
      alpn: at === 0 || length === 0 ? undefined : ssl.peek(at, length).toString('latin1'),
      version: version === 0x0304 ? 'TLSv1.3' : version === 0x0303 ? 'TLSv1.2' : `0x${version.toString(16)}`,
      peerCertificate: this.#peerCertificate(),
    }
  }

  /** What the other side showed, if it was verified. */
  #peerCertificate(): Buffer | undefined {
    const { ssl, arena } = this.#tls
    const verifies = 'client' in this.#side ? this.#side.client.verify !== false : this.#asks
    if (!verifies || ssl.SSL_get_verify_result(this.#ssl) !== 0) return undefined
    const x = ssl.SSL_get1_peer_certificate(this.#ssl)
    if (x === 0) return undefined
    const length = ssl.i2d_X509(x, 0)
    let der: Buffer | undefined
    if (length > 0 && length <= copySize) {
      arena.setPointer(cellAt, arena, copyAt, copyAt + length)
      ssl.i2d_X509(x, arena.pointer(cellAt, cellAt + 8))
      der = Buffer.from(arena.buffer.subarray(copyAt, copyAt + length))
    }
    ssl.X509_free(x)
    return der
  }

  #goodbye(): void {
    this.#tls.ssl.SSL_shutdown(this.#ssl)
    this.#tls.ssl.ERR_clear_error()
    this.#send(false)
    this.#below.end()
  }

  /** Gives what OpenSSL wants sent to the connection below. */
  #send(more: boolean): boolean {
    const { ssl, arena, cipher, going } = this.#tls
    let kept = true
    for (;;) {
      const n = ssl.BIO_read(going, arena.pointer(cipherAt, cipherAt + cipherSize), cipherSize)
      if (n <= 0) return kept
      kept = this.#below.write(cipher, 0, n, more)
      if (n < cipherSize) return kept
    }
  }

  #schedule(): void {
    if (this.#scheduled || !this.#done) return
    this.#scheduled = true
    process.nextTick(() => {
      this.#scheduled = false
      if (!this.#paused) this.#step()
    })
  }
}

/** The filter if the OpenSSL inside this Node does what it should: it shakes hands with itself and carries bytes; else why not. */
export function openTls(keys?: TicketKeys): Tls | string {
  const ssl = openssl()
  if (typeof ssl === 'string') return ssl
  try {
    const tls = new Tls(ssl, keys)
    const why = handshakeWithItself(tls)
    return why ?? tls
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

function handshakeWithItself(tls: Tls): string | undefined {
  // Two wires that are each other's protocol's source, run until nothing moves.
  const toServer: Buffer[] = []
  const toClient: Buffer[] = []
  const wire = (out: Buffer[]): Wire => ({
    peer: 'self',
    peerPort: 0,
    local: { host: 'self', port: 0 },
    tls: undefined,
    alive: true,
    write: (b, from, to) => out.push(Buffer.from(b.subarray(from, to))) > 0,
    pause: () => {},
    resume: () => {},
    end: () => {},
    abort: () => {},
  })
  const quiet = { drain: () => {}, eof: () => {} }
  let got = ''
  let failed = ''
  let back!: Wire
  const text = 'what goes in comes out'
  const server = tls.server(
    { identity: () => throwaway, alpn: ['self/1'] },
    () => ({ ...quiet, opened: (w) => (back = w), data: (b, from, to) => void back.write(b, from, to), closed: (why) => (failed = why) }),
    () => 0,
  )
  const client = tls.client(
    { serverName: 'self-test', ca: throwaway.cert, alpn: ['self/1'] },
    'self',
    {
      ...quiet,
      opened: () => {},
      data: (b, from, to) => (got += b.toString('latin1', from, to)),
      closed: (why) => (failed = why),
    } as Protocol,
    () => 0,
  )
  server.opened(wire(toClient))
  client.opened(wire(toServer))
  client.write(Buffer.from(text), 0, text.length)
  for (let i = 0; i < 100 && (toServer.length > 0 || toClient.length > 0); i++) {
    const a = toServer.shift()
    if (a !== undefined) server.data(a, 0, a.length)
    const b = toClient.shift()
    if (b !== undefined) client.data(b, 0, b.length)
  }
  const { alpn, version } = client.tls ?? {}
  server.closed('')
  client.closed('')
  if (got !== text || alpn !== 'self/1' || version !== 'TLSv1.3' || failed !== '')
    return `a handshake with ourselves brought "${got}", ${String(version)}, ALPN ${String(alpn)}, ${failed || 'no reason'}`
  if (tls.counts.made !== tls.counts.freed) return 'SSL objects are left over'
  return undefined
}
