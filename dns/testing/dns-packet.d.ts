/** The second decoder of the tests; it brings no types. */
declare module 'dns-packet' {
  interface Record {
    readonly type: string
    readonly name: string
    readonly ttl?: number
    readonly data?: unknown
    readonly [more: string]: unknown
  }
  interface Packet {
    readonly type?: string
    readonly id?: number
    readonly flags?: number
    readonly rcode?: string
    readonly questions?: readonly { readonly type: string; readonly name: string }[]
    readonly answers?: readonly Record[]
    readonly authorities?: readonly Record[]
    readonly additionals?: readonly Record[]
  }
  const dnsPacket: { readonly AUTHORITATIVE_ANSWER: number; readonly DNSSEC_OK: number; encode(packet: Packet): Buffer; decode(b: Buffer): Packet }
  export default dnsPacket
}
