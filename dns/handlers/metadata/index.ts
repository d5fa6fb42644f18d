import type { Plugin } from '../plugin.ts'

/** What is known of a client is looked up when asked for; the word is accepted. */
export const metadata: Plugin = { name: 'metadata', build: () => [] }
