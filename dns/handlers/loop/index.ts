import type { Plugin } from '../plugin.ts'

/** Accepted; see `forward`. */
export const loop: Plugin = { name: 'loop', build: () => [] }
