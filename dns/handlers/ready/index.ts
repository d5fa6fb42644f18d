import { listenAddress, type Plugin } from '../plugin.ts'

/** Where `/ready` is answered. */
export const ready: Plugin = {
  name: 'ready',
  build: (lines, place) => {
    for (const line of lines) place.options.ready = listenAddress(line, 8181)
    return []
  },
}
