import { duration } from '../../../lib/options.ts'
import { CorefileError } from '../../corefile.ts'
import { unknown, type Plugin } from '../plugin.ts'

/** How long connections may be idle, and take for a message. */
export const timeouts: Plugin = {
  name: 'timeouts',
  build: (lines, place) => {
    for (const line of lines) {
      for (const option of line.block) {
        const ms = duration(option.args[0] ?? '')
        if (ms === undefined) throw new CorefileError(option, `${option.name}: expected a duration such as 10s`)
        if (option.name === 'idle') place.options.idle = ms
        else if (option.name === 'read' || option.name === 'write') place.options.message = ms
        else unknown(line, option)
      }
    }
    return []
  },
}
