//! Sans-I/O cores of the record path: frames, slots, sequences, marks, settlement.
