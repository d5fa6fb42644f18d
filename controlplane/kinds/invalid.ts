/** One reason why an object is refused. */
export interface Cause {
  readonly reason: string
  readonly message: string
  readonly field: string
}

/** A Go value in an error text that is neither string, number, boolean nor list of strings. */
export class GoText {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

/** Collects reasons, in Kubernetes' words, each with the path of its field. */
export class FieldErrors {
  readonly causes: Cause[] = []

  required(field: string, detail = ''): void {
    this.#add('FieldValueRequired', field, `Required value${detail === '' ? '' : `: ${detail}`}`)
  }
  invalid(field: string, value: unknown, detail: string): void {
    this.#add('FieldValueInvalid', field, `Invalid value: ${show(value)}${detail === '' ? '' : `: ${detail}`}`)
  }
  unsupported(field: string, value: unknown, supported: readonly string[]): void {
    this.#add('FieldValueNotSupported', field, `Unsupported value: ${show(value)}${supported.length === 0 ? '' : `: supported values: ${supported.map((s) => JSON.stringify(s)).join(', ')}`}`)
  }
  duplicate(field: string, value: unknown): void {
    this.#add('FieldValueDuplicate', field, `Duplicate value: ${show(value)}`)
  }
  forbidden(field: string, detail: string): void {
    this.#add('FieldValueForbidden', field, `Forbidden: ${detail}`)
  }
  tooLong(field: string, max: number): void {
    this.#add('FieldValueTooLong', field, `Too long: may not be more than ${max} bytes`)
  }
  tooMany(field: string, got: number, max: number): void {
    this.#add('FieldValueTooMany', field, `Too many: ${got}: must have at most ${max} items`)
  }
  notFound(field: string, value: unknown): void {
    this.#add('FieldValueNotFound', field, `Not found: ${show(value)}`)
  }
  internal(field: string, detail: string): void {
    this.#add('InternalError', field, `Internal error: ${detail}`)
  }

  #add(reason: string, field: string, message: string): void {
    this.causes.push({ reason, message, field })
  }
}

/** A value as Go's `%#v` shows it in these texts. */
function show(value: unknown): string {
  if (value instanceof GoText) return value.text
  if (value === undefined || value === null) return 'null'
  if (Array.isArray(value)) return `[]string{${value.map((v) => JSON.stringify(v)).join(', ')}}`
  return typeof value === 'string' ? JSON.stringify(value) : typeof value === 'object' ? JSON.stringify(value) : String(value)
}
