/** Scalars as they look in JSON; what they are on the protobuf wire is in api/protobuf.ts. */
export type Scalar = 'string' | 'bool' | 'int32' | 'int64' | 'double' | 'bytes' | 'Time' | 'MicroTime' | 'Quantity' | 'IntOrString' | 'FieldsV1' | 'Raw' | 'ExtraValue'

/** The type of a field. */
export type Type =
  | { readonly is: 'scalar'; readonly scalar: Scalar }
  | { readonly is: 'list'; readonly of: Type }
  | { readonly is: 'map'; readonly of: Type }
  | { readonly is: 'message'; readonly message: Message }

/** One field of a message. */
export interface Field {
  readonly name: string
  /** Its protobuf number. */
  readonly number: number
  readonly type: Type
  /** Tells "not given" from zero: zero is kept. */
  readonly pointer: boolean
  /** Written even when empty (Go without `omitempty`). */
  readonly always: boolean
  readonly required: boolean
  /** Strategic merge: the elements are merged, by `mergeKey` if they are messages. */
  readonly merge: boolean
  readonly mergeKey: string | undefined
  readonly retainKeys: boolean
  /** Server-side apply: how a list is compared; lists without one are atomic. */
  readonly list: 'map' | 'set' | 'atomic' | undefined
  readonly keys: readonly string[]
  /** Server-side apply: the value has one owner, whole. */
  readonly atomic: boolean
  readonly fallback: unknown
  /** The values that OpenAPI names; what is refused is decided by the kind. */
  readonly values: readonly string[] | undefined
  /** Protobuf numbers of the messages this field stands in, when Go embeds them (`inline`). */
  readonly inside: readonly number[]
}

/** A message: what a JSON object may hold. */
export interface Message {
  readonly name: string
  /** Its name in OpenAPI. */
  readonly model: string
  /** The Go package and name that error texts show, e.g. `v1.ServiceSpec`. */
  readonly fields: ReadonlyMap<string, Field>
  readonly atomic: boolean
}

const messages = new Map<string, Message>()
const scalars: ReadonlySet<string> = new Set<Scalar>(['string', 'bool', 'int32', 'int64', 'double', 'bytes', 'Time', 'MicroTime', 'Quantity', 'IntOrString', 'FieldsV1', 'Raw', 'ExtraValue'])

/** The message called `name`; throws if no file declared it. */
export function message(name: string): Message {
  const found = messages.get(name)
  if (found === undefined) throw new Error(`no type ${name}`)
  return found
}

/** All messages that were declared. */
export const allMessages = (): IterableIterator<Message> => messages.values()

/**
 * Declares messages, in lines. A line without indent names a message; below it stand its fields: `name number type flags`.
 * `name!` is written even when empty; `*T` is a pointer, `[]T` a list, `{T}` a map from strings. Flags: `required`, `default=V`, `atomic`,
 * `enum=A|B`, `set`, `map=KEYS` (server-side apply), `merge=KEY`, `merge`, `retain` (strategic merge). `...T number` embeds T's fields.
 */
export function types(group: string, text: string): void {
  let current: { fields: Map<string, Field> } | undefined
  const embeds: (() => void)[] = []
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue
    const words = line.trim().split(' ')
    if (!line.startsWith(' ')) {
      const name = words[0]!
      if (messages.has(name)) throw new Error(`type ${name} declared twice`)
      const as = words.find((w) => w.startsWith('as='))?.slice(3) ?? name
      current = { fields: new Map() }
      messages.set(name, { name, model: `${group.startsWith('io.') ? group : `io.k8s.api.${group}`}.${as}`, fields: current.fields, atomic: words.includes('atomic') })
      continue
    }
    const fields = current!.fields
    if (words[0]!.startsWith('...')) {
      const inner = words[0]!.slice(3)
      const number = Number(words[1])
      embeds.push(() => {
        for (const f of message(inner).fields.values()) fields.set(f.name, { ...f, inside: [number, ...f.inside] })
      })
      continue
    }
    const f = field(words)
    fields.set(f.name, f)
  }
  for (const embed of embeds) embed()
}

function field(words: readonly string[]): Field {
  const always = words[0]!.endsWith('!')
  const pointer = words[2]!.startsWith('*')
  const flags = words.slice(3)
  const flag = (name: string): string | undefined => flags.find((f) => f.startsWith(`${name}=`))?.slice(name.length + 1)
  const given = flag('default')
  const mergeKey = flag('merge')
  const keys = flag('map')
  const type = typeOf(pointer ? words[2]!.slice(1) : words[2]!)
  return {
    name: always ? words[0]!.slice(0, -1) : words[0]!,
    number: Number(words[1]),
    type,
    pointer,
    always,
    required: flags.includes('required'),
    merge: mergeKey !== undefined || flags.includes('merge'),
    mergeKey,
    retainKeys: flags.includes('retain'),
    list: keys !== undefined ? 'map' : flags.includes('set') ? 'set' : flags.includes('atomic') && type.is === 'list' ? 'atomic' : undefined,
    keys: keys?.split(',') ?? [],
    atomic: flags.includes('atomic'),
    fallback: given === undefined ? undefined : type.is === 'scalar' && type.scalar === 'int32' ? Number(given) : given,
    values: flag('enum')?.split('|'),
    inside: [],
  }
}

function typeOf(text: string): Type {
  if (text.startsWith('[]')) return { is: 'list', of: typeOf(text.slice(2)) }
  if (text.startsWith('{')) return { is: 'map', of: typeOf(text.slice(1, -1)) }
  if (scalars.has(text)) return { is: 'scalar', scalar: text as Scalar }
  // Messages name each other before they are declared, also across files.
  return {
    is: 'message',
    get message() {
      const found = message(text)
      Object.defineProperty(this, 'message', { value: found })
      return found
    },
  }
}
