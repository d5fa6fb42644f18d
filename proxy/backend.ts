import type { Refused, ServiceTable } from './table.ts'

/** A way to make this node forward Service traffic. */
export interface Backend {
  readonly name: string
  /** Why this backend cannot work here, or nothing if it can. */
  probe(): Promise<string | undefined>
  /**
   * Makes the node forward exactly `desired`, and tells which fronts it could not serve, and why. The same table may come again;
   * only the last one counts. When it rejects, the node may be anywhere between the old table and the new.
   */
  apply(desired: ServiceTable, signal: AbortSignal): Promise<{ readonly refused: readonly Refused[] }>
  /** What is not as last applied, in words; nothing if all is well. */
  check(): Promise<readonly string[]>
  /** The table whose endpoints tracked connections lead to, where that is not the one last applied: a forwarder's own sockets. */
  tracked?(): ServiceTable | undefined
  /** How many rules there are, by table of iptables; for metrics. */
  rules?(): Readonly<Record<string, number>>
  /** Lets go of listeners and timers; leaves the kernel's rules forwarding. */
  close(): Promise<void>
  /** Removes everything this backend ever made, also what an earlier process left. */
  cleanup(): Promise<void>
}
