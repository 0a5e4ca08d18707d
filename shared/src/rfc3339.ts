/** A time as RFC 3339 writes it, with its zone; that the date exists it does not tell. */
export const RFC_3339 = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/;
