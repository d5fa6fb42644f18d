/** Text for a tool's standard input, or bytes for a socket. */
export type Bytes = string | Uint8Array

export type Family = 4 | 6
export type NetlinkProtocol = 'route' | 'netfilter' | 'generic'

/** One socket to the kernel. */
export interface Netlink {
  /** Sends one datagram and returns the kernel's answers, until the last acknowledgement asked for. Rejects with the errno's name. */
  request(message: Uint8Array): Promise<readonly Uint8Array[]>
  close(): void
}

/** One object of `nft -j list`, e.g. `{ chain: { … } }`. */
export type NftObject = Readonly<Record<string, unknown>>

/** Everything said to one node's kernel. `real` (linux/real.ts) is the real one, `linux/fake` the one in memory; backends get it, never make it. */
export interface Kernel {
  iptables(family: Family): {
    /** `iptables-restore --noflush` with this text. */
    restore(text: Bytes, signal: AbortSignal): Promise<void>
    save(tables: readonly string[]): Promise<string>
    /** `legacy` or `nf_tables`. */
    variant(): Promise<'legacy' | 'nf_tables'>
  }
  readonly nft: { run(script: Bytes, signal: AbortSignal): Promise<void>; list(table: string): Promise<NftObject[]> }
  readonly ipset: { restore(text: Bytes): Promise<void>; save(): Promise<string> }
  /** Generic (IPVS), netfilter (nftables, conntrack), route. */
  netlink(protocol: NetlinkProtocol): Netlink
  readonly sysctl: { get(name: string): Promise<string>; set(name: string, value: string): Promise<void> }
}
