import type { Address } from '../lib/sockets/seam.ts'
import type { Edns, EdnsOption, Question, Rec } from './wire/message.ts'
import type { Name } from './wire/name.ts'

/** A question on its way through the handlers. */
export interface Query {
  /** As it came, in the client's case: what the answer repeats. */
  readonly question: Question
  /** What is looked for, folded; a rewrite asks the next handler with another one. */
  readonly name: Name
  readonly type: number
  readonly client: Address
  /** Where it came to. */
  readonly local: Address
  readonly protocol: 'udp' | 'tcp' | 'tls'
  readonly edns: Edns | undefined
  /** EDNS options that upstream servers are sent. */
  readonly options?: readonly EdnsOption[]
  readonly recursionDesired: boolean
  readonly checkingDisabled: boolean
  /** The names whose aliases led here. */
  readonly chain: readonly Name[]
  /** Asks the whole server another question in this one's name: where an alias leads. */
  lookup(name: Name, type: number, chain: readonly Name[]): Promise<Answer>
}

/** What is answered: a value; only the server writes it. */
export interface Answer {
  readonly rcode: number
  readonly authoritative: boolean
  readonly answers: readonly Rec[]
  readonly authority: readonly Rec[]
  readonly additional: readonly Rec[]
  /** An upstream checked signatures (AD). */
  readonly authenticated?: boolean
  /** An upstream could not send all of it. */
  readonly truncated?: boolean
  /** Following the aliases led in a circle. */
  readonly loops?: boolean
  /** No answer at all is sent. */
  readonly drop?: boolean
  /** Which handler made it, and why: for logs and people. */
  readonly by?: string
  readonly why?: string
}

/**
 * Answers a DNS query, or asks the next handler. `folds`: its effect on a name is known beforehand, and compiled; `counts`: only looks on;
 * `asks`: must be asked each time.
 */
export interface Handler {
  readonly name: string
  readonly manner: 'folds' | 'counts' | 'asks'
  answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer>
  /** Makes questions of other classes ours. */
  readonly foreign?: boolean
  /** Of a handler that folds: the names whose answers it makes or changes; all that it does not name goes through it unchanged. None if left out. */
  touches?(): readonly Name[] | 'all'
  /** Set by whoever compiles: to be told when `touches` says something else. */
  changed?: (() => void) | undefined
}

const none: readonly Rec[] = []

/** An answer without records. */
export function bare(rcode: number, by: string, why: string, authority: readonly Rec[] = none, authoritative = false): Answer {
  return { rcode, authoritative, answers: none, authority, additional: none, by, why }
}

/** A question for all types at once (RFC 8482). */
export const isAny = (query: Query): boolean => query.type === 255
