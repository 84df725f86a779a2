"""The login node: from a configuration to units of work, and from files to what is still to do.

Never imports torch. Order of a launch: config, grid, observe, plan, submit.
"""
