import type { Log } from '../lib/log.ts'
import type { Address, Bound } from '../lib/sockets/seam.ts'
import { workerFile, Workers } from '../lib/workers.ts'
import { Count } from './resolve.ts'
import { answerLater, type Serving } from './serve.ts'
import type { Server } from './server.ts'
import type { WorkerTable } from './worker.ts'

/** Sockets at one address that workers read; linux/sockets has them. */
export interface Group {
  readonly address: Address
  /** What each worker is given. */
  readonly shares: readonly unknown[]
  readonly dropped: number
  /** Set when workers are told another table: those that do not know it yet leave all to the main thread. */
  generation: number
  drain(worker: number): void
  stop(): void
  close(): void
}

export interface GroupOptions {
  readonly count: number
  readonly nap: number
  /** Told of each datagram that a worker did not answer; its octets are lent until the call returns. */
  handed(b: Buffer, from: number, to: number, client: Address, local: Address, bound: Bound): void
}

/** How workers take datagrams; nothing of it on machines where they cannot. */
export interface BatchOptions {
  /** Workers of each listener. */
  readonly count: number
  /** Nanoseconds; see docs/dns.md. */
  readonly nap: number
  open(at: Address, options: GroupOptions): Group
}

/** Datagrams at an address, taken by workers in batches: what has a compiled answer they answer, the rest comes here. */
export class Batches implements Serving {
  readonly #group: Group
  readonly #workers: Workers<WorkerTable, never>
  readonly #server: Server
  #told: WorkerTable = { generation: 0, table: undefined }
  #closing: Promise<void> | undefined

  private constructor(at: Address, how: BatchOptions, server: Server, log: Log) {
    this.#server = server
    this.#group = how.open(at, {
      count: how.count,
      nap: how.nap,
      handed: (b, from, to, client, local, bound) => answerLater(server, b, from, to, client, local, bound),
    })
    this.#workers = new Workers({
      file: workerFile(import.meta.url, './worker.ts'),
      count: how.count,
      data: { shares: this.#group.shares },
      whole: () => this.#told,
      message: (i) => this.#group.drain(i),
      log,
    })
  }

  static async open(at: Address, how: BatchOptions, server: Server, log: Log): Promise<Batches> {
    const made = new Batches(at, how, server, log)
    await made.#workers.ready()
    return made
  }

  get port(): number {
    return this.#group.address.port
  }
  get dropped(): number {
    return this.#group.dropped
  }

  /** From now on workers answer from this table, or leave all to the main thread. Returns what each counts. */
  serve(memory: SharedArrayBuffer | undefined): readonly Uint32Array[] {
    const counters = memory === undefined ? [] : Array.from({ length: this.#workers.count }, () => new SharedArrayBuffer(Count.words * 4))
    const generation = this.#told.generation + 1
    this.#told = { generation, table: memory === undefined ? undefined : { memory, counters } }
    this.#workers.replace()
    // A worker that waits for questions sees it with the next one, and hands that over before it learns the rest.
    this.#group.generation = generation
    return counters.map((c) => new Uint32Array(c))
  }

  drain(): void {}

  /** Ends the workers after what had come by then; what they handed over is answered. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close())
  }

  async #close(): Promise<void> {
    this.#group.stop()
    await this.#workers.close(2000)
    for (let i = 0; i < this.#workers.count; i++) this.#group.drain(i)
    for (let waited = 0; waited < 500 && this.#server.busy > 0; waited += 5) await new Promise((r) => setTimeout(r, 5))
    this.#group.close()
  }
}
