import { CorefileError } from '../../corefile.ts'
import { unknown, type Plugin } from '../plugin.ts'

/** The addresses or interfaces a server block is served on. */
export const bind: Plugin = {
  name: 'bind',
  build: (lines, place) => {
    for (const line of lines) {
      for (const option of line.block) unknown(line, option)
      if (line.args.length === 0) throw new CorefileError(line, 'bind: expected addresses or interfaces')
      place.options.bind = [...(place.options.bind ?? []), ...line.args]
    }
    return []
  },
}
