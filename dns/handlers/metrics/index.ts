import { listenAddress, type Plugin } from '../plugin.ts'

/** Where `/metrics` is answered; what is counted, is counted in any case. */
export const prometheus: Plugin = {
  name: 'prometheus',
  build: (lines, place) => {
    for (const line of lines) place.options.prometheus = listenAddress(line, 9153)
    return []
  },
}
