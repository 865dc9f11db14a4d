"""Every code of a diagnostic, with one sentence; `docs/errors.md` is written from this table."""

from __future__ import annotations

CODES: dict[str, str] = {
    # the text
    "E0101": "A character has no meaning in a spec.",
    "E0102": "A name holds a letter that is neither ASCII nor a distinct Greek letter.",
    "E0103": "A number is malformed, or too large for a double.",
    "E0104": "A string is not closed on its line.",
    "E0105": "A bracket is not closed, or closes nothing.",
    "E0106": "The text does not follow the grammar.",
    "E0107": "A keyword stands where a name is wanted.",
    "E0108": "A spec begins with one `scan NAME` line.",
    # names
    "E0201": "A name is not declared or assigned.",
    "E0202": "A function does not exist.",
    "E0203": "A name is declared or assigned twice.",
    "E0204": "A local is read before the line that assigns it.",
    "E0205": "An input, a param or a function cannot be assigned.",
    "E0206": "A function got the wrong number of arguments.",
    "E0207": "A tensor is called like a function that it was not declared as.",
    "E0208": "A name is taken by the language.",
    # axes
    "E0301": "An axis is not declared.",
    "E0302": "The two sides of an assignment to a state have different axes.",
    "E0303": "An output is declared with other axes than its value has.",
    "E0304": "A contraction has no axis to contract.",
    "E0305": "An operation names an axis that its operand lacks.",
    "E0306": "A batch axis cannot be contracted.",
    "E0307": "`@` needs a matrix whose axis is repeated, and a vector over that axis.",
    "E0308": "An axis stands more often than it may.",
    "E0309": "A rename is not possible.",
    "E0310": "The size of an axis cannot be known at a call.",
    "E0311": "An axis needs a fixed size here.",
    "E0312": "Axes in brackets are missing, or stand where none belong.",
    "E0313": "An axis is declared with something that is not a size.",
    # types
    "E0401": "An operation is not defined on complex numbers.",
    "E0402": "A condition must be bool.",
    "E0403": "A value's type does not fit its state.",
    "E0404": "An initial value is not a number or a param of the state's axes.",
    "E0405": "A type does not exist, or cannot stand here.",
    "E0406": "An operation needs a whole number written out.",
    # semirings
    "E0501": "A semiring does not exist.",
    "E0502": "Ordinary arithmetic in a scan over a semiring stands inside `value(…)`.",
    "E0503": "A value is not in the carrier of the semiring.",
    # states and outputs
    "E0601": "An output is neither a local nor a state.",
    "E0602": "A spec needs an input and an output.",
    "E0603": "`prev` and `conv` take the name of an input or of a local.",
    "E0604": "A declaration holds something that does not belong to it.",
    # continuous time
    "E0701": "A discretisation rule does not exist.",
    "E0702": "A discretisation rule got the wrong number of settings.",
    "E0703": "`d/dt` stands before something that is not a state.",
    "E0704": "A setting of a discretisation rule does not fit the state.",
    "E0705": "`d/dt` cannot stand here.",
    "E0706": "The right side of `d/dt` is not affine in its state.",
    "E0707": "The right side of `d/dt` couples elements of its state along more than one axis.",
    "E0708": "The Triton target has no functions of matrices that vary in time.",
    # def, for, import
    "E0801": "A function calls itself.",
    "E0802": "A function sees its parameters only.",
    "E0803": "The axes of a function's parameters cannot be bound.",
    "E0804": "An import leaves the directory of the importing file, or names no `.scan` file.",
    "E0805": "An imported file cannot be read.",
    "E0806": "Files import each other in a circle.",
    "E0807": "An imported file holds something other than `def` and `import`.",
    "E0808": "A `for` block cannot run over this axis.",
    # limits
    "E0901": "The source is too long.",
    "E0902": "An expression is nested too deeply.",
    "E0903": "A number or a name is too long.",
    "E0904": "There are too many axes.",
    "E0905": "The program is too large once functions and loops are written out.",
    "E0906": "Imports are nested too deeply.",
    "E0907": "A delay or a convolution reaches back too far.",
    # warnings
    "W0101": "A tensor or a local is never used.",
    "W0102": "A state is never assigned.",
}
