/** The version of this project, as in package.json. */
export const version = '0.1.0'
