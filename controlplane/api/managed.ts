import type { Json } from '../kinds/decode.ts'
import type { Kind } from '../kinds/kind.ts'
import type { Call } from './rest.ts'

/** Who set which field, after an update. */
export function managedByUpdate(_k: Kind, _made: Json, _before: Json | undefined, _call: Call, _now: number, _given?: unknown): Json[] {
  return []
}

/** Who set which field, after an apply. */
export function managedByApply(_k: Kind, _made: Json, _before: Json | undefined, _applied: Json, _call: Call, _now: number): Json[] {
  return []
}
