/** Numbers of the IANA registry "DNS parameters" that this server has an opinion on; all others pass through as numbers (RFC 3597). */
export const Type = {
  A: 1,
  NS: 2,
  MD: 3,
  MF: 4,
  CNAME: 5,
  SOA: 6,
  MB: 7,
  MG: 8,
  MR: 9,
  NULL: 10,
  PTR: 12,
  HINFO: 13,
  MINFO: 14,
  MX: 15,
  TXT: 16,
  RP: 17,
  AFSDB: 18,
  RT: 21,
  SIG: 24,
  KEY: 25,
  PX: 26,
  AAAA: 28,
  LOC: 29,
  NXT: 30,
  SRV: 33,
  NAPTR: 35,
  KX: 36,
  CERT: 37,
  DNAME: 39,
  OPT: 41,
  DS: 43,
  SSHFP: 44,
  RRSIG: 46,
  NSEC: 47,
  DNSKEY: 48,
  NSEC3: 50,
  NSEC3PARAM: 51,
  TLSA: 52,
  CDS: 59,
  CDNSKEY: 60,
  OPENPGPKEY: 61,
  SVCB: 64,
  HTTPS: 65,
  SPF: 99,
  TKEY: 249,
  TSIG: 250,
  IXFR: 251,
  AXFR: 252,
  MAILB: 253,
  MAILA: 254,
  ANY: 255,
  URI: 256,
  CAA: 257,
} as const

export const Class = { IN: 1, CH: 3, HS: 4, NONE: 254, ANY: 255 } as const

export const Rcode = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5, BADVERS: 16 } as const

/** Bits of the second 16-bit word of a header (RFC 1035 4.1.1, RFC 4035 3.1.6). */
export const Flag = { QR: 0x8000, AA: 0x0400, TC: 0x0200, RD: 0x0100, RA: 0x0080, Z: 0x0040, AD: 0x0020, CD: 0x0010 } as const

const typeNames = new Map<number, string>(Object.entries(Type).map(([name, n]) => [n, name]))
const classNames = new Map<number, string>(Object.entries(Class).map(([name, n]) => [n, name]))
const rcodeNames = new Map<number, string>([...Object.entries(Rcode).map(([name, n]): [number, string] => [n, name]), [6, 'YXDOMAIN'], [7, 'YXRRSET'], [8, 'NXRRSET'], [9, 'NOTAUTH'], [10, 'NOTZONE']])

/** `AAAA`, or `TYPE4711` (RFC 3597 section 5). */
export const typeName = (type: number): string => typeNames.get(type) ?? `TYPE${type}`
export const className = (c: number): string => classNames.get(c) ?? `CLASS${c}`
export const rcodeName = (rcode: number): string => rcodeNames.get(rcode) ?? `RCODE${rcode}`

/** The number of `AAAA` or `TYPE4711`, in any case; undefined if it is none. */
export function typeNumber(text: string): number | undefined {
  const upper = text.toUpperCase()
  if (Object.hasOwn(Type, upper)) return Type[upper as keyof typeof Type]
  const m = /^TYPE(\d{1,5})$/.exec(upper)
  return m !== null && Number(m[1]) < 65_536 ? Number(m[1]) : undefined
}

/** The number of `NXDOMAIN` and the like. */
export function rcodeNumber(text: string): number | undefined {
  const upper = text.toUpperCase()
  for (const [n, name] of rcodeNames) if (name === upper) return n
  return undefined
}
