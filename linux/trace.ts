import type { Ip } from '../lib/ip.ts'

/** The first packet of a connection. */
export interface Packet {
  readonly family: 4 | 6
  readonly protocol: 'tcp' | 'udp' | 'sctp' | 'icmp'
  readonly source: Ip
  readonly sourcePort: number
  readonly destination: Ip
  readonly destinationPort: number
  /** The interface it comes in by; undefined: a process of this machine sends it. */
  readonly from: string | undefined
}

/** One way a packet may go. */
export interface Way {
  /** Of all ways together 1. */
  readonly probability: number
  readonly end: 'delivered' | 'dropped' | 'rejected'
  /** After translation. */
  readonly destination: Ip
  readonly destinationPort: number
  readonly translated: boolean
  /** Its source becomes one of this machine's. */
  readonly masqueraded: boolean
  /** Ends on this machine. */
  readonly here: boolean
  /** `tcp-reset`, `icmp-port-unreachable` …, of a rejected one. */
  readonly by: string | undefined
  /** Rules it was held against. */
  readonly tested: number
  /** The rules that matched, in order. */
  readonly path: readonly Step[]
}

/** A rule that matched. */
export interface Step {
  readonly table: string
  readonly chain: string
  readonly rule: string
}
