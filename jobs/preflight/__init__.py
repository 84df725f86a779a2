"""Networks and methods tried before a launch: may they be certified, and trained to the bit?"""
