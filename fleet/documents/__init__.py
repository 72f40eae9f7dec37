"""What the fleet signs and devices read: pure structs and their text. The agent imports only this.

Each document lies in the file of its name; all need nothing but msgspec and the manifest's rules.
"""
