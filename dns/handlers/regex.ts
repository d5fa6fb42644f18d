import { CorefileError, type Line } from '../corefile.ts'

/** A regular expression in Go's syntax, where it is also ours; or an error that names the line. */
export function goRegex(text: string, line: Line): RegExp {
  try {
    return new RegExp(text.replaceAll('(?P<', '(?<').replace(/^\(\?i\)/, ''), text.startsWith('(?i)') ? 'i' : '')
  } catch (error) {
    throw new CorefileError(line, `${line.name}: ${text} is no regular expression: ${error instanceof Error ? error.message : ''}`)
  }
}
