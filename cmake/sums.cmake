# SPDX-License-Identifier: Apache-2.0
# Writes FOLDER/SHA256SUMS, as sha256sum does, for the libraries in FOLDER. Run after each is linked:
# with the lock LOCK, the last to come has seen all.
file(LOCK ${LOCK} GUARD PROCESS)
file(GLOB libraries RELATIVE ${FOLDER} ${FOLDER}/*.so)
list(SORT libraries)
set(sums "")
foreach(library IN LISTS libraries)
  file(SHA256 ${FOLDER}/${library} sum)
  string(APPEND sums "${sum}  ${library}\n")
endforeach()
file(WRITE ${FOLDER}/SHA256SUMS "${sums}")
